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
	return s.keyNamed(ctx, name)
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

// Keys lists keys in the order of their names, a page at a time. next is what to put into After for the next page, empty
// after the last. Devices are not touched.
func (s *Service) Keys(ctx context.Context, o ListOptions) (keys []Key, next string, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", err
	}
	defer s.calls.leave()
	if o.Limit, err = pageSize(o.Limit); err != nil {
		return nil, "", err
	}
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

// pageSize returns how many entries a page has for which a caller asked for n.
func pageSize(n int) (int, error) {
	switch {
	case n < 0:
		return 0, holdfast.Errorf(holdfast.ErrInvalid, "", "a page cannot have %d entries", n)
	case n == 0:
		return DefaultPage, nil
	default:
		return min(n, MaxPage), nil
	}
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
