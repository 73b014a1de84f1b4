package custody

import (
	"context"
	"errors"
	"fmt"

	"holdfast"
	"holdfast/custody/store"

	"go.uber.org/zap"
)

// CreateKey makes a key on a backend and takes it into custody. It returns ErrExists when the name or place is taken,
// ErrInvalid for a request that is wrong anywhere, ErrUnsupported for what the backend cannot do, and the backend's
// errors. When it fails, there is no key: neither a record nor anything on the device.
func (s *Service) CreateKey(ctx context.Context, r CreateKeyRequest) (Key, error) {
	if err := s.enter(ctx); err != nil {
		return Key{}, err
	}
	defer s.calls.leave()
	b, err := s.backend(r.Backend)
	if err != nil {
		return Key{}, err
	}
	spec := holdfast.KeySpec{Label: r.Name, Algorithm: r.Algorithm, Residence: r.Residence, Place: r.Place, PIN: r.PIN,
		Touch: r.Touch}
	if err := spec.Check(); err != nil {
		return Key{}, err
	}
	if err := r.Purpose.Check(r.Algorithm); err != nil {
		return Key{}, err
	}
	if !s.claims.take(r.Name) {
		return Key{}, errTaken(r.Name)
	}
	defer s.claims.drop(r.Name)
	if err := s.refuseTaken(ctx, r.Name); err != nil {
		return Key{}, err
	}
	d, err := b.get(ctx)
	if err != nil {
		return Key{}, err
	}
	capabilities := d.Capabilities()
	if err := capabilities.CheckSpec(spec); err != nil {
		return Key{}, err
	}
	if spec.Residence == holdfast.ResidenceDefault {
		if spec.Residence = capabilities.DefaultResidence; spec.Place != "" {
			spec.Residence = holdfast.Resident
		}
	}
	c := &creation{s: s, b: b, d: d, spec: spec, record: store.Key{
		ID: store.NewID(), Name: r.Name, Backend: r.Backend, Algorithm: r.Algorithm, Purpose: string(r.Purpose),
		Residence: spec.Residence, Place: r.Place, PIN: r.PIN, Touch: r.Touch, State: store.StateActive,
	}}
	c.spec.ID = c.record.ID[:]
	return c.run(ctx)
}

// refuseTaken returns ErrExists when there is a key called name.
func (s *Service) refuseTaken(ctx context.Context, name string) error {
	if s.cache.get(name) != nil {
		return errTaken(name)
	}
	_, err := s.cfg.Store.Key(ctx, name)
	switch {
	case err == nil:
		return errTaken(name)
	case errors.Is(err, holdfast.ErrNotFound):
		return nil
	default:
		return err
	}
}

func errTaken(name string) error {
	return holdfast.Errorf(holdfast.ErrExists, "", "there is a key called %q already: choose another name", name)
}

// creation is one CreateKey in progress.
type creation struct {
	s      *Service
	b      *backend
	d      *device
	spec   holdfast.KeySpec
	record store.Key
}

func (c *creation) run(ctx context.Context) (Key, error) {
	make := c.wrapped
	if c.spec.Residence == holdfast.Resident {
		make = c.resident
	}
	start := c.s.cfg.Now()
	k, err := make(ctx)
	if err != nil {
		return Key{}, err
	}
	_ = c.b.observe(nil)
	c.s.log.Info("key created", zap.String("op", "create"), zap.String("key_ref", string(k.Ref)),
		zap.String("backend", k.Backend),
		zap.Duration("dur", c.s.cfg.Now().Sub(start)))
	return k, nil
}

// wrapped makes a wrapped key. Nothing is left on the device when the process dies, so nothing is written down before.
func (c *creation) wrapped(ctx context.Context) (Key, error) {
	k, err := c.d.Generate(ctx, c.spec)
	if err != nil {
		return Key{}, c.b.observe(err)
	}
	c.s.step("generated")
	w, ok := holdfast.As[holdfast.WrappedKey](k)
	if !ok {
		return Key{}, holdfast.Errorf(holdfast.ErrInternal, "generate", "the backend made a wrapped key without a blob")
	}
	c.record.Blob = w.Blob()
	return c.add(ctx, k)
}

// resident makes a key in the device: first the intent, then the key, then the record.
func (c *creation) resident(ctx context.Context) (Key, error) {
	if c.d.planner == nil || c.d.destroyer == nil {
		return Key{}, holdfast.Errorf(holdfast.ErrUnsupported, "generate",
			"backend %s cannot make a resident key that survives a crash cleanly", c.b.cfg.Name)
	}
	release, err := c.b.place(ctx)
	if err != nil {
		return Key{}, err
	}
	defer release()
	planned, ref, err := c.d.planner.Plan(ctx, c.spec)
	if err != nil {
		return Key{}, c.b.observe(err)
	}
	c.s.step("planned")
	intent := store.Intent{ID: c.record.ID, Name: c.record.Name, Backend: c.record.Backend, Ref: ref,
		Created: c.s.cfg.Now()}
	if err := c.s.cfg.Store.BeginCreate(ctx, intent); err != nil {
		return Key{}, err
	}
	c.s.step("intended")
	if planned.Place == "" { // the ref is random: nobody else will be offered it
		release()
	}
	k, err := c.d.Generate(ctx, planned)
	if err != nil {
		return Key{}, c.undo(ctx, ref, c.b.observe(err))
	}
	c.s.step("generated")
	if k.Ref() != ref {
		err := holdfast.Errorf(holdfast.ErrInternal, "generate", "the backend planned %s and made %s", ref, k.Ref())
		if strayErr := c.d.destroyer.Destroy(context.WithoutCancel(ctx), k.Ref()); strayErr != nil {
			err.Err = fmt.Errorf("%w, which is left on the device: %s", err.Err, strayErr)
		}
		return Key{}, c.undo(ctx, ref, err)
	}
	key, err := c.add(ctx, k)
	if err != nil {
		return Key{}, c.undo(ctx, ref, err)
	}
	return key, nil
}

// undo leaves nothing of a creation that failed with cause, and returns cause. What cannot be undone now is when the
// device comes back, or the service starts.
func (c *creation) undo(ctx context.Context, ref holdfast.Ref, cause error) error {
	ctx = context.WithoutCancel(ctx)
	switch holdfast.CodeOf(cause) {
	case holdfast.ErrExists, holdfast.ErrInvalid, holdfast.ErrUnsupported, holdfast.ErrAuth, holdfast.ErrLocked:
		// Refused before anything was made. After ErrExists, what is there is somebody else's.
	default:
		if err := c.d.destroyer.Destroy(ctx, ref); err != nil && !errors.Is(err, holdfast.ErrNotFound) {
			c.b.unfinished.Store(true)
			c.s.log.Warn("failed creation waits for its clean-up", zap.String("op", "create"),
				zap.String("key_ref", string(ref)),
				zap.String("backend", c.b.cfg.Name), codeField(err), zap.Error(err))
			return cause
		}
	}
	if err := c.s.cfg.Store.DropIntent(ctx, c.record.ID); err != nil {
		c.b.unfinished.Store(true)
		c.s.log.Error("intent not dropped", zap.String("key_ref", string(ref)), zap.String("backend", c.b.cfg.Name),
			zap.Error(err))
	}
	return cause
}

// add writes the record of a key that was made or found, which is the moment from which it exists.
func (c *creation) add(ctx context.Context, k holdfast.Key) (Key, error) {
	public, err := marshalPublic(k)
	if err != nil {
		return Key{}, err
	}
	if err := c.record.Algorithm.CheckPublic(k.Public()); err != nil || k.Algorithm() != c.record.Algorithm {
		return Key{}, holdfast.Errorf(holdfast.ErrInternal, "generate",
			"the backend was asked for a key for %s and made one for %s", c.record.Algorithm, k.Algorithm())
	}
	c.record.Ref, c.record.Public, c.record.Created = k.Ref(), public, c.s.cfg.Now().UTC()
	epoch := c.s.cache.epoch.Load()
	// The key is there: the record is written even if the caller does not wait for it.
	if err := c.s.cfg.Store.AddKey(context.WithoutCancel(ctx), &c.record); err != nil {
		return Key{}, err
	}
	c.s.step("recorded")
	e, err := c.s.newEntry(&c.record)
	if err != nil {
		return Key{}, err
	}
	e.handle.Store(&handle{k})
	c.s.cache.add(e, epoch)
	return e.key, nil
}
