package custody

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"holdfast"

	"go.uber.org/zap"
)

// DestroyKey destroys a key for ever, on the device and in the records, and leaves a tombstone. The name is free
// afterwards. Uses in progress are waited for; new ones fail with ErrState.
//
// When the device goes away in the middle, DestroyKey returns ErrUnavailable: the key cannot be used any more, and is
// destroyed when the device is back, or when DestroyKey is called again. When the device refuses, the key stays as it
// was. A wrapped key is destroyed without the device by deleting its blob; copies in backups of the store's file stay
// loadable by the device.
func (s *Service) DestroyKey(ctx context.Context, name string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.leave()
	if !s.claims.take(name) {
		return holdfast.Errorf(holdfast.ErrBusy, "", "the key %q is being created or destroyed by somebody else", name)
	}
	defer s.claims.drop(name)
	e, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	start := s.cfg.Now()
	if e.key.Residence == holdfast.Wrapped {
		err = s.destroyWrapped(ctx, e)
	} else {
		err = s.destroyResident(ctx, e)
	}
	if err == nil {
		s.log.Info("key destroyed", zap.String("op", "destroy"), zap.String("key_ref", string(e.key.Ref)),
			zap.String("backend", e.key.Backend),
			zap.Duration("dur", s.cfg.Now().Sub(start)))
	}
	return err
}

// stop keeps everybody from using a key and waits for those who do. It returns the entry that they use: e may have been
// evicted since it was found, and then others have another one. The caller has claimed the name.
func (s *Service) stop(ctx context.Context, e *entry) (*entry, error) {
	for !e.gate.enter() {
		runtime.Gosched()
		var err error
		if e, err = s.find(ctx, e.key.Name); err != nil {
			return nil, err
		}
	}
	e.destroying.Store(true)
	if err := e.gate.shutFromInside(ctx); err != nil {
		e.destroying.Store(e.key.Destroying)
		return nil, err
	}
	return e, nil
}

func (s *Service) destroyWrapped(ctx context.Context, e *entry) error {
	e, err := s.stop(ctx, e)
	if err != nil {
		return err
	}
	defer s.cache.remove(e) // whatever became of it, the next one reads the record
	if err := s.cfg.Store.FinishDestroy(ctx, e.key.ID, s.cfg.Now()); err != nil {
		return err
	}
	s.step("finished")
	return nil
}

func (s *Service) destroyResident(ctx context.Context, e *entry) error {
	if e.backend == nil {
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the key %q is on backend %s, which is not configured",
			e.key.Name, e.key.Backend)
	}
	d, err := e.backend.get(ctx)
	if err != nil {
		return err
	}
	if d.destroyer == nil {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "backend %s cannot destroy keys", e.key.Backend)
	}
	if e, err = s.stop(ctx, e); err != nil {
		return err
	}
	defer s.cache.remove(e)
	if err := s.cfg.Store.BeginDestroy(ctx, e.key.ID, s.cfg.Now()); err != nil {
		return err
	}
	s.step("intended")
	err = d.destroyer.Destroy(ctx, e.key.Ref)
	ctx = context.WithoutCancel(ctx) // the device was touched
	switch {
	case err == nil || errors.Is(err, holdfast.ErrNotFound):
		s.step("destroyed")
		if err := s.cfg.Store.FinishDestroy(ctx, e.key.ID, s.cfg.Now()); err != nil {
			e.backend.unfinished.Store(true)
			return err
		}
		s.step("finished")
		e.backend.noteThere(e.key.Name)
		_ = e.backend.observe(nil)
		return nil
	case wasRefused(err):
		if abortErr := s.cfg.Store.AbortDestroy(ctx, e.key.ID); abortErr != nil {
			e.backend.unfinished.Store(true)
			return fmt.Errorf("%w; the destruction stays begun: %s", err, abortErr)
		}
		return err
	default:
		e.backend.unfinished.Store(true)
		return e.backend.observe(&holdfast.Error{Op: "destroy", Ref: e.key.Ref, Code: holdfast.CodeOf(err),
			Retries: holdfast.RetriesUnknown,
			Err:     fmt.Errorf("the key can no longer be used and is destroyed when the device is back: %w", err)})
	}
}

// wasRefused reports whether an error of Destroy means that the device did nothing.
func wasRefused(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	switch holdfast.CodeOf(err) {
	case holdfast.ErrInvalid, holdfast.ErrDenied, holdfast.ErrState, holdfast.ErrUnsupported, holdfast.ErrAuth,
		holdfast.ErrLocked, holdfast.ErrBusy:
		return true
	default:
		return false
	}
}
