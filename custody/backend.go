package custody

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"

	"go.uber.org/zap"
)

// The pauses between attempts to open a backend: the first, and the longest that doubling leads to.
const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// backend is one configured backend, open or not.
type backend struct {
	cfg BackendConfig
	s   *Service

	device atomic.Pointer[device] // nil until the backend was opened
	away   atomic.Pointer[away]   // why the device is away, nil while it is not

	// unfinished is set when intents wait for the device.
	unfinished atomic.Bool
	cleaning   sync.Mutex // held while intents are finished

	// placing is held by whoever is about to fill a place of the device: until that is done, the device would offer the
	// same place to the next.
	placing chan struct{}

	mu       sync.Mutex
	opening  chan struct{}           // guarded by mu; closed when the attempt in progress is over, nil without one
	failure  error                   // guarded by mu; of the last attempt
	next     time.Time               // guarded by mu; when the next attempt may be made
	pause    time.Duration           // guarded by mu; before it
	missing  map[string]holdfast.Ref // guarded by mu; keys that the device was found not to have, by name
	concerns []string                // guarded by mu; of the last inspection
}

// device is an open backend with what it can do besides.
type device struct {
	holdfast.Backend
	planner   holdfast.Planner
	destroyer holdfast.Destroyer
	loader    holdfast.Loader
}

// away says why a device is away.
type away struct{ err error }

func newBackend(s *Service, cfg BackendConfig) *backend {
	return &backend{cfg: cfg, s: s, placing: make(chan struct{}, 1), missing: make(map[string]holdfast.Ref)}
}

// get returns the open device. It tries to open a backend that is not open, unless that was tried a moment ago or a
// person has to act first.
func (b *backend) get(ctx context.Context) (*device, error) {
	if d := b.device.Load(); d != nil {
		return d, nil
	}
	return b.openNow(ctx, false)
}

// openNow opens the backend, or waits for an attempt in progress. Forced, it does not mind that the last attempt has
// failed.
func (b *backend) openNow(ctx context.Context, forced bool) (*device, error) {
	b.mu.Lock()
	attempt := b.opening
	if attempt == nil && b.device.Load() == nil {
		if b.failure != nil && !forced && (b.needsPerson() || b.s.cfg.Now().Before(b.next)) {
			defer b.mu.Unlock()
			return nil, b.unavailable()
		}
		attempt = make(chan struct{})
		b.opening = attempt
		b.s.working.Go(func() { b.attempt(attempt) })
	}
	b.mu.Unlock()
	if attempt != nil {
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if d := b.device.Load(); d != nil {
		return d, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return nil, b.unavailable()
}

// attempt opens the device once, finishes what was left unfinished on it, and only then lets others use it.
func (b *backend) attempt(done chan struct{}) {
	defer close(done)
	start := b.s.cfg.Now()
	opened, err := b.cfg.Open(b.s.life)
	if err == nil && opened == nil {
		err = holdfast.Errorf(holdfast.ErrInternal, "open", "the backend opened as nothing")
	}
	fields := []zap.Field{zap.String("op", "open"), zap.String("backend", b.cfg.Name),
		zap.Duration("dur", b.s.cfg.Now().Sub(start))}
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pause = min(max(2*b.pause, firstPause), maxPause)
		b.opening, b.failure, b.next = nil, err, b.s.cfg.Now().Add(b.pause)
		b.s.log.Warn("backend unavailable", append(fields, codeField(err), zap.Error(err))...)
		return
	}
	d := &device{Backend: opened}
	d.planner, _ = holdfast.As[holdfast.Planner](opened)
	d.destroyer, _ = holdfast.As[holdfast.Destroyer](opened)
	d.loader, _ = holdfast.As[holdfast.Loader](opened)
	b.finish(b.s.life, d)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opening, b.failure = nil, nil
	b.device.Store(d)
	b.s.log.Info("backend open", fields...)
}

// needsPerson reports whether another attempt could only cost PIN tries. b.mu is held.
func (b *backend) needsPerson() bool {
	return errors.Is(b.failure, holdfast.ErrAuth) || errors.Is(b.failure, holdfast.ErrLocked)
}

// unavailable returns why the backend is not open, in the code of the failure where a person has to act. b.mu is held.
func (b *backend) unavailable() error {
	switch {
	case b.failure == nil:
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "backend %s is still being opened", b.cfg.Name)
	case b.needsPerson():
		return &holdfast.Error{Op: "open " + b.cfg.Name, Code: holdfast.CodeOf(b.failure),
			Retries: retriesOf(b.failure), Err: b.failure}
	default:
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "backend %s cannot be opened: %w", b.cfg.Name, b.failure)
	}
}

// observe takes note of what a use of the device showed, and returns err. A device that is back has the acts finished
// that wait for it.
func (b *backend) observe(err error) error {
	switch {
	case errors.Is(err, holdfast.ErrUnavailable):
		if b.away.Swap(&away{err}) == nil {
			b.s.log.Warn("backend away", zap.String("backend", b.cfg.Name), zap.Error(err))
		}
	case err == nil && b.away.Load() != nil:
		if b.away.Swap(nil) != nil {
			b.s.log.Info("backend back", zap.String("backend", b.cfg.Name))
			b.finishLater()
		}
	}
	return err
}

// reason returns why the backend is not available, nil if it is.
func (b *backend) reason() error {
	if a := b.away.Load(); a != nil {
		return a.err
	}
	if b.device.Load() != nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unavailable()
}

// place waits until nobody else is filling a place of the device; the caller has to call the function it returns.
func (b *backend) place(ctx context.Context) (release func(), err error) {
	select {
	case b.placing <- struct{}{}:
		return sync.OnceFunc(func() { <-b.placing }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// maxMissing bounds how many missing keys a backend remembers.
const maxMissing = 1000

// noteMissing remembers that the device does not have a key.
func (b *backend) noteMissing(name string, ref holdfast.Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.missing) < maxMissing {
		b.missing[name] = ref
	}
}

// noteThere forgets noteMissing.
func (b *backend) noteThere(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.missing, name)
}

func retriesOf(err error) int {
	if e, ok := errors.AsType[*holdfast.Error](err); ok {
		return e.Retries
	}
	return holdfast.RetriesUnknown
}

// codeField is an error's code as logs have it.
func codeField(err error) zap.Field { return zap.String("code", holdfast.CodeOf(err).Error()) }
