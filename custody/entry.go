package custody

import (
	"context"
	"crypto"
	"errors"
	"runtime"
	"sync/atomic"

	"holdfast"
	"holdfast/custody/store"
	"holdfast/internal/pubkey"
)

// entry is a key in the cache: its record, and its handle once it was used.
type entry struct {
	key     Key
	public  []byte   // SubjectPublicKeyInfo, as in the record
	blob    []byte   // of a wrapped key
	backend *backend // nil when it is not configured

	used       atomic.Bool // since the cache's hand last passed
	place      int         // in the cache's ring; guarded by its mu
	gate       gate        // those who use the key are inside
	destroying atomic.Bool // set before the gate is shut for a destruction

	handle  atomic.Pointer[handle]
	loading chan struct{} // held by the one who gets the handle
}

// handle is a key of an open backend.
type handle struct{ holdfast.Key }

// newEntry makes an entry of a record.
func (s *Service) newEntry(r *store.Key) (*entry, error) {
	public, err := parsePublic(r.Algorithm, r.Public)
	if err != nil {
		return nil, &holdfast.Error{Op: "read key", Ref: r.Ref, Code: holdfast.ErrIntegrity,
			Retries: holdfast.RetriesUnknown, Err: err}
	}
	e := &entry{key: keyOf(r, public), public: r.Public, blob: r.Blob, backend: s.backends[r.Backend],
		loading: make(chan struct{}, 1)}
	e.used.Store(true)
	e.destroying.Store(r.Destroying)
	return e, nil
}

func keyOf(r *store.Key, public crypto.PublicKey) Key {
	return Key{
		ID: r.ID, Name: r.Name, Backend: r.Backend, Ref: r.Ref, Algorithm: r.Algorithm, Purpose: Purpose(r.Purpose),
		Residence: r.Residence, Public: public, Place: r.Place, PIN: r.PIN, Touch: r.Touch, Adopted: r.Adopted, State: r.State,
		Created: r.Created, Destroying: r.Destroying,
	}
}

// parsePublic returns a record's public key in the type that keys of algorithm a have.
func parsePublic(a holdfast.Algorithm, spki []byte) (crypto.PublicKey, error) {
	if a.Use() == holdfast.UseEncrypt {
		return nil, nil
	}
	return pubkey.ParseSPKIFor(a, spki)
}

// marshalPublic returns a key's public half as a SubjectPublicKeyInfo, nil for a secret key.
func marshalPublic(k holdfast.Key) ([]byte, error) {
	if k.Public() == nil {
		return nil, nil
	}
	return pubkey.MarshalSPKI(k.Public())
}

// find returns the entry of the key called name.
func (s *Service) find(ctx context.Context, name string) (*entry, error) {
	for {
		if e := s.cache.get(name); e != nil {
			return e, nil
		}
		epoch := s.cache.epoch.Load()
		record, err := s.cfg.Store.Key(ctx, name)
		if err != nil {
			return nil, err
		}
		e, err := s.newEntry(record)
		if err != nil {
			return nil, err
		}
		if e = s.cache.add(e, epoch); e != nil {
			return e, nil
		}
	}
}

// hold returns the entry of the key called name for use; the caller has to call its gate's leave.
func (s *Service) hold(ctx context.Context, name string) (*entry, error) {
	for {
		e, err := s.find(ctx, name)
		if err != nil {
			return nil, err
		}
		if e.gate.enter() {
			if !e.destroying.Load() {
				return e, nil
			}
			e.gate.leave()
		}
		if e.destroying.Load() {
			return nil, holdfast.Errorf(holdfast.ErrState, "", "the key %q is being destroyed", name)
		}
		runtime.Gosched() // it has just been evicted
	}
}

// get returns the handle of an entry, from memory after the first time.
func (e *entry) get(ctx context.Context) (holdfast.Key, error) {
	if h := e.handle.Load(); h != nil {
		return h.Key, nil
	}
	if e.backend == nil {
		return nil, holdfast.Errorf(holdfast.ErrUnavailable, "", "the key %q is on backend %s, which is not configured",
			e.key.Name, e.key.Backend)
	}
	d, err := e.backend.get(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case e.loading <- struct{}{}:
		defer func() { <-e.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h := e.handle.Load(); h != nil {
		return h.Key, nil
	}
	k, err := e.load(ctx, d)
	if err != nil {
		return nil, e.backend.observe(err)
	}
	e.handle.Store(&handle{k})
	return k, nil
}

// load gets the key from the device and checks that it is the one in the record.
func (e *entry) load(ctx context.Context, d *device) (holdfast.Key, error) {
	var k holdfast.Key
	var err error
	switch {
	case e.key.Residence != holdfast.Wrapped:
		k, err = d.Key(ctx, e.key.Ref)
	case d.loader == nil:
		err = holdfast.Errorf(holdfast.ErrUnsupported, "", "backend %s loads no wrapped keys", e.key.Backend)
	default:
		k, err = d.loader.Load(ctx, e.blob)
	}
	if err != nil {
		return nil, e.lost(err)
	}
	public, err := marshalPublic(k)
	if err != nil {
		return nil, err
	}
	if k.Algorithm() != e.key.Algorithm || string(public) != string(e.public) {
		return nil, &holdfast.Error{Op: "find", Ref: e.key.Ref, Code: holdfast.ErrIntegrity,
			Retries: holdfast.RetriesUnknown,
			Err:     errors.New("the device has another key there than the record says; do not use it")}
	}
	return k, nil
}

// lost takes note of a key that is not on its device any more.
func (e *entry) lost(err error) error {
	if !errors.Is(err, holdfast.ErrNotFound) {
		return err
	}
	e.backend.noteMissing(e.key.Name, e.key.Ref)
	return holdfast.Errorf(holdfast.ErrNotFound, "",
		"the key %q is not on the device of backend %s any more; `holdfast doctor` shows what is: %w",
		e.key.Name, e.key.Backend, err)
}
