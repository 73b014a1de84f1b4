package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"holdfast"
	"holdfast/custody/store"
)

// InspectBackend compares a device with its records: every resident key is listed. What it found is also among the
// concerns of the backend's status, until the next time.
func (s *Service) InspectBackend(ctx context.Context, name string) (Inspection, error) {
	if err := s.enter(ctx); err != nil {
		return Inspection{}, err
	}
	defer s.calls.leave()
	b, err := s.backend(name)
	if err != nil {
		return Inspection{}, err
	}
	d, err := b.get(ctx)
	if err != nil {
		return Inspection{}, err
	}
	i := inspector{s: s, b: b, found: make(map[holdfast.Ref][]byte)}
	if err := i.list(ctx, d); err != nil {
		return Inspection{}, b.observe(err)
	}
	if err := i.compareRecords(ctx); err != nil {
		return Inspection{}, err
	}
	if err := i.compareFound(ctx); err != nil {
		return Inspection{}, err
	}
	if examiner, ok := holdfast.As[holdfast.Examiner](d.Backend); ok {
		if i.result.Concerns, err = examiner.Examine(ctx); err != nil {
			return Inspection{}, b.observe(err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.concerns = i.result.concerns()
	clear(b.missing)
	return i.result, nil
}

// inspector is one inspection in progress.
type inspector struct {
	s      *Service
	b      *backend
	found  map[holdfast.Ref][]byte // the device's keys: their public halves in DER
	result Inspection
}

// list reads the device's keys.
func (i *inspector) list(ctx context.Context, d *device) error {
	for k, err := range d.Keys(ctx) {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, holdfast.ErrUnavailable) || errors.Is(err, holdfast.ErrLocked) || errors.Is(err, holdfast.ErrAuth):
			return err
		case err != nil:
			i.result.Unusable = append(i.result.Unusable, err)
			continue
		}
		public, err := marshalPublic(k)
		if err != nil {
			i.result.Unusable = append(i.result.Unusable, err)
			continue
		}
		i.found[k.Ref()] = public
	}
	return nil
}

// compareRecords looks for records whose key is not on the device, or is another one there.
func (i *inspector) compareRecords(ctx context.Context) error {
	for after := ""; ; {
		page, err := i.s.cfg.Store.Keys(ctx, i.b.cfg.Name, after, MaxPage)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].Name
		for _, r := range page {
			if err := i.compareRecord(ctx, r); err != nil {
				return err
			}
		}
	}
}

func (i *inspector) compareRecord(ctx context.Context, r *store.Key) error {
	if r.Residence == holdfast.Wrapped || r.Destroying {
		return nil
	}
	public, there := i.found[r.Ref]
	delete(i.found, r.Ref)
	if there && bytes.Equal(public, r.Public) {
		return nil
	}
	// The device was listed before: a key that was made since is not on the list.
	k, err := i.s.cfg.Store.KeyByID(ctx, r.ID)
	if errors.Is(err, holdfast.ErrNotFound) || err == nil && k.Destroying {
		return nil
	}
	if err != nil {
		return err
	}
	if !there {
		if d := i.b.device.Load(); d != nil {
			if now, err := d.Key(ctx, r.Ref); err == nil {
				if public, err = marshalPublic(now); err == nil && bytes.Equal(public, r.Public) {
					return nil
				}
			}
		}
	}
	key, err := i.s.view(r)
	if err != nil {
		return err
	}
	if there {
		i.result.Changed = append(i.result.Changed, key)
	} else {
		i.result.Missing = append(i.result.Missing, key)
	}
	return nil
}

// compareFound sorts the keys of the device that have no record.
func (i *inspector) compareFound(ctx context.Context) error {
	intents, err := i.s.cfg.Store.Intents(ctx, i.b.cfg.Name)
	if err != nil {
		return err
	}
	i.result.Pending = intents
	for _, intent := range intents {
		delete(i.found, intent.Ref)
	}
	for ref, public := range i.found {
		if err := i.compareStray(ctx, ref, public); err != nil {
			return err
		}
	}
	return nil
}

func (i *inspector) compareStray(ctx context.Context, ref holdfast.Ref, public []byte) error {
	_, err := i.s.cfg.Store.KeyByRef(ctx, i.b.cfg.Name, ref)
	if err == nil { // recorded meanwhile
		return nil
	}
	if !errors.Is(err, holdfast.ErrNotFound) {
		return err
	}
	stones, err := i.s.cfg.Store.TombstonesByRef(ctx, i.b.cfg.Name, ref)
	if err != nil {
		return err
	}
	for _, t := range stones {
		if bytes.Equal(t.Public, public) {
			i.result.Undead = append(i.result.Undead, Undead{Ref: ref, Name: t.Name, Destroyed: t.Destroyed})
			return nil
		}
	}
	i.result.Foreign = append(i.result.Foreign, ref)
	return nil
}

// concerns says in sentences what a person should look at.
func (i Inspection) concerns() []string {
	var list []string
	add := func(n int, one, many string) {
		switch {
		case n == 1:
			list = append(list, one)
		case n > 1:
			list = append(list, fmt.Sprintf(many, n))
		}
	}
	for _, k := range i.Changed[:min(len(i.Changed), 10)] {
		list = append(list, fmt.Sprintf("Under the reference of the key %q the device has another key: do not use it.",
			k.Name))
	}
	for _, k := range i.Missing[:min(len(i.Missing), 10)] {
		list = append(list, fmt.Sprintf("The key %q is not on the device any more: `holdfast key destroy` removes its record.", k.Name))
	}
	add(len(i.Missing)-10, "One more key is missing.", "%d more keys are missing.")
	for _, u := range i.Undead[:min(len(i.Undead), 10)] {
		list = append(list, fmt.Sprintf("The key %q (%s) was destroyed on %s and is on the device again.", u.Name,
			u.Ref, u.Destroyed.Format("2006-01-02")))
	}
	add(len(i.Pending), "One interrupted act waits to be finished.", "%d interrupted acts wait to be finished.")
	return list
}
