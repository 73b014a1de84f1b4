package custody

import (
	"context"

	"holdfast"
	"holdfast/custody/store"
)

// Key returns the key called name. The device is not touched.
func (s *Service) Key(ctx context.Context, name string) (Key, error) {
	if err := s.enter(ctx); err != nil {
		return Key{}, err
	}
	defer s.calls.leave()
	e, err := s.find(ctx, name)
	if err != nil {
		return Key{}, err
	}
	return e.view(), nil
}

// KeyByRef returns the key that a backend knows as ref, in its canonical form. The device is not touched.
func (s *Service) KeyByRef(ctx context.Context, backend string, ref holdfast.Ref) (Key, error) {
	if err := s.enter(ctx); err != nil {
		return Key{}, err
	}
	defer s.calls.leave()
	record, err := s.cfg.Store.KeyByRef(ctx, backend, ref)
	if err != nil {
		return Key{}, err
	}
	return s.view(record)
}

// KeyByID returns the key with that identifier. The device is not touched.
func (s *Service) KeyByID(ctx context.Context, id store.ID) (Key, error) {
	if err := s.enter(ctx); err != nil {
		return Key{}, err
	}
	defer s.calls.leave()
	record, err := s.cfg.Store.KeyByID(ctx, id)
	if err != nil {
		return Key{}, err
	}
	return s.view(record)
}

// Keys lists keys in the order of their names, a page at a time. next is what to put into After for the next page, empty
// after the last. Devices are not touched.
func (s *Service) Keys(ctx context.Context, o ListOptions) (keys []Key, next string, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", err
	}
	defer s.calls.leave()
	if o.Limit < 0 {
		return nil, "", holdfast.Errorf(holdfast.ErrInvalid, "", "a page has at least one key, not %d", o.Limit)
	}
	if o.Limit == 0 {
		o.Limit = DefaultPage
	}
	o.Limit = min(o.Limit, MaxPage)
	records, err := s.cfg.Store.Keys(ctx, o.Backend, o.After, o.Limit+1) // one more, to know whether there is a next page
	if err != nil {
		return nil, "", err
	}
	if len(records) > o.Limit {
		records = records[:o.Limit]
		next = records[o.Limit-1].Name
	}
	keys = make([]Key, len(records))
	for i, record := range records {
		if keys[i], err = s.view(record); err != nil {
			return nil, "", err
		}
	}
	return keys, next, nil
}

// view returns a record as a key.
func (s *Service) view(record *store.Key) (Key, error) {
	e, err := s.newEntry(record)
	if err != nil {
		return Key{}, err
	}
	return e.key, nil
}

// view returns the key as it is now.
func (e *entry) view() Key {
	k := e.key
	k.Destroying = e.destroying.Load()
	return k
}
