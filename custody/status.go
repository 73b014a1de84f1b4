package custody

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"holdfast"
)

// askWait is how long Backends waits for a device to say how its PIN is. A device that is stuck must not hide the others.
const askWait = 2 * time.Second

// Backends returns the status of all configured backends in the order of the configuration, then that of backends which
// have records but are not configured. Devices are asked about their PIN only, at the same time and not for long.
func (s *Service) Backends(ctx context.Context) []BackendStatus {
	if err := s.enter(ctx); err != nil {
		return nil
	}
	defer s.calls.leave()
	list := make([]BackendStatus, len(s.cfg.Backends))
	var wg sync.WaitGroup
	for i := range s.cfg.Backends {
		wg.Go(func() { list[i] = s.backends[s.cfg.Backends[i].Name].status(ctx) })
	}
	wg.Wait()
	names := s.cfg.Store.Backends()
	slices.Sort(names)
	for _, name := range names {
		if s.backends[name] == nil {
			reason := holdfast.Errorf(holdfast.ErrUnavailable, "", "backend %s is not in the configuration any more",
				name)
			list = append(list, BackendStatus{Name: name, KeyCount: s.cfg.Store.Count(name), Reason: reason})
		}
	}
	return list
}

// ProbeBackend asks a device whether it is there, opens the backend when it is not open, finishes interrupted acts, and
// returns the status. An absent device is a status, not an error.
func (s *Service) ProbeBackend(ctx context.Context, name string) (BackendStatus, error) {
	if err := s.enter(ctx); err != nil {
		return BackendStatus{}, err
	}
	defer s.calls.leave()
	b, err := s.backend(name)
	if err != nil {
		return BackendStatus{}, err
	}
	d, err := b.probe(ctx)
	if ctx.Err() != nil {
		return BackendStatus{}, ctx.Err()
	}
	if err == nil && b.unfinished.Load() {
		b.finish(ctx, d)
	}
	return b.status(ctx), nil
}

// probe does one round trip to the device. It opens a backend that is not open, unless that would cost a PIN try.
func (b *backend) probe(ctx context.Context) (*device, error) {
	d := b.device.Load()
	if d == nil {
		b.mu.Lock()
		forced := !b.needsPerson()
		b.mu.Unlock()
		return b.openNow(ctx, forced)
	}
	prober, ok := holdfast.As[holdfast.Prober](d.Backend)
	if !ok {
		return d, b.reason()
	}
	return d, b.observe(prober.Probe(ctx))
}

// UnlockBackend gives a PIN to a device, once, on behalf of a person: the only way on after a PIN was refused. The zero
// Secret means the PIN from where the configuration says, read anew. It returns ErrAuth with the tries left when the
// device refuses this PIN too, ErrLocked when it takes none, ErrUnsupported for a device without a PIN.
func (s *Service) UnlockBackend(ctx context.Context, name string, pin holdfast.Secret) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.leave()
	b, err := s.backend(name)
	if err != nil {
		return err
	}
	d := b.device.Load()
	if d == nil {
		if d, err = b.openNow(ctx, true); err != nil {
			return err
		}
	}
	unlocker, ok := holdfast.As[holdfast.Unlocker](d.Backend)
	if !ok {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "backend %s has no PIN", name)
	}
	if pin.Len() == 0 {
		if b.cfg.PIN == nil {
			return holdfast.Errorf(holdfast.ErrInvalid, "",
				"the configuration does not say where the PIN of backend %s is: enter it", name)
		}
		if pin, err = b.cfg.PIN(ctx); err != nil {
			return fmt.Errorf("read the PIN of backend %s: %w", name, err)
		}
	}
	if err := b.observe(unlocker.Unlock(ctx, pin)); err != nil {
		return err
	}
	if b.unfinished.Load() {
		b.finish(ctx, d)
	}
	return nil
}

// status returns what is known of the backend.
func (b *backend) status(ctx context.Context) BackendStatus {
	st := BackendStatus{Name: b.cfg.Name, Kind: b.cfg.Kind, KeyCount: b.s.cfg.Store.Count(b.cfg.Name),
		VerifyAfterSign: b.cfg.VerifyAfterSign}
	d := b.device.Load()
	if d != nil {
		st.Capabilities = new(d.Capabilities())
		st.Kind = st.Capabilities.Kind
		_, st.Seals = holdfast.As[holdfast.Sealer](d.Backend)
		if st.Capabilities.Distrust != "" {
			st.Concerns = append(st.Concerns,
				"Keys on this device must not be believed to be safe in it: "+st.Capabilities.Distrust)
		}
		var concern string
		st.PIN, concern = b.askPIN(ctx, d)
		if concern != "" {
			st.Concerns = append(st.Concerns, concern)
		}
	}
	st.Reason = b.reason()
	st.Available = st.Reason == nil
	if b.unfinished.Load() {
		st.Concerns = append(st.Concerns,
			"Creations or destructions that were interrupted wait for the device to be cleaned up.")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.missing); n > 0 {
		st.Concerns = append(st.Concerns, fmt.Sprintf("%d keys were not found on the device when they were used.", n))
	}
	st.Concerns = append(st.Concerns, b.concerns...)
	return st
}

// askPIN asks the device how its PIN is, and does not wait long.
func (b *backend) askPIN(ctx context.Context, d *device) (*holdfast.PINStatus, string) {
	unlocker, ok := holdfast.As[holdfast.Unlocker](d.Backend)
	if !ok || !b.s.calls.enter() {
		return nil, ""
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	answer := make(chan *holdfast.PINStatus, 1)
	b.s.working.Go(func() {
		defer b.s.calls.leave()
		status, err := unlocker.PINStatus(ctx)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				_ = b.observe(err)
			}
			answer <- nil
			return
		}
		answer <- &status
	})
	select {
	case status := <-answer:
		return status, pinConcern(b.cfg.Name, status)
	case <-ctx.Done():
		return nil, "The device did not say in time how its PIN is: it is busy, or stuck."
	}
}

func pinConcern(name string, status *holdfast.PINStatus) string {
	switch {
	case status == nil:
		return ""
	case status.Refused:
		return fmt.Sprintf("The PIN was refused, and none is tried until a person acts: run `holdfast backend unlock %s`.", name)
	case status.Note != "":
		return "PIN: " + status.Note
	default:
		return ""
	}
}
