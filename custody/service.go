package custody

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"holdfast"

	"go.uber.org/zap"
)

// cacheSize is how many keys are kept ready for use. With its handle an entry takes about 3.5 KiB, and the garbage
// collector lets the heap grow to twice that.
const cacheSize = 4096

// openWait is how long New waits for backends to open. Those that take longer are unavailable until they have opened.
const openWait = 5 * time.Second

// Service holds keys. Its methods may be called from several goroutines at once. All of them return ErrUnavailable after
// Close, ErrNotFound for a key or backend that does not exist, and ErrUnavailable for one whose device is away.
type Service struct {
	cfg      Config
	log      *zap.Logger
	backends map[string]*backend // never changes
	cache    *cache
	calls    gate   // every exported method that touches a device or the store is inside
	claims   claims // names on which an act is in progress

	life    context.Context // ends when the service is closed; opening and cleaning up run under it
	end     context.CancelFunc
	working sync.WaitGroup // goroutines of the service itself
	closing sync.Once

	// fault is called between every two durable steps with the name of the step that is done. Tests that crash there
	// set it; it is nil otherwise.
	fault func(step string)
}

// New opens all backends at the same time and finishes what an earlier process left unfinished. A backend that cannot be
// opened does not stop the others: it is shown as unavailable, and tried again when it is used. ctx bounds the waiting;
// its values stay with the service.
func New(ctx context.Context, cfg Config) (*Service, error) { return newService(ctx, cfg, nil) }

func newService(ctx context.Context, cfg Config, fault func(string)) (*Service, error) {
	if cfg.Store == nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "custody needs a store")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Version == "" {
		cfg.Version = "devel"
	}
	s := &Service{cfg: cfg, log: cfg.Logger, backends: make(map[string]*backend), cache: newCache(cacheSize),
		fault: fault}
	for i, bc := range cfg.Backends {
		if err := holdfast.CheckLabel(bc.Name); err != nil || bc.Open == nil || s.backends[bc.Name] != nil {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
				"backend %d needs a name of its own and a way to open it, not %q", i+1, bc.Name)
		}
		s.backends[bc.Name] = newBackend(s, bc)
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.openAll(ctx)
	return s, nil
}

// openAll opens all backends and waits for them, but not for ever.
func (s *Service) openAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	var wg sync.WaitGroup
	for _, b := range s.backends {
		wg.Go(func() { _, _ = b.openNow(ctx, true) }) // the backend keeps the error as its reason
	}
	wg.Wait()
}

// Close waits for the calls in flight and closes the backends. It is idempotent.
func (s *Service) Close() error {
	var errs []error
	s.closing.Do(func() {
		s.end()
		errs = append(errs, s.calls.shut(context.WithoutCancel(s.life)))
		s.working.Wait()
		for _, b := range s.backends {
			if device := b.device.Load(); device != nil {
				errs = append(errs, device.Close())
			}
		}
	})
	return errors.Join(errs...)
}

// enter begins a call of the service; the caller has to call s.calls.leave.
func (s *Service) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.calls.enter() {
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the service is shutting down")
	}
	return nil
}

// backend returns the configured backend called name.
func (s *Service) backend(name string) (*backend, error) {
	if b := s.backends[name]; b != nil {
		return b, nil
	}
	names := make([]string, len(s.cfg.Backends))
	for i := range s.cfg.Backends {
		names[i] = s.cfg.Backends[i].Name
	}
	return nil, holdfast.Errorf(holdfast.ErrNotFound, "", "there is no backend called %q: the configuration has %s",
		name, strings.Join(names, ", "))
}

// step tells a test that a step is done.
func (s *Service) step(name string) {
	if s.fault != nil {
		s.fault(name)
	}
}

// claims keeps acts on one name apart.
type claims struct {
	mu    sync.Mutex
	names map[string]struct{} // guarded by mu
}

// take reports whether the name was free; it belongs to the caller then, until drop.
func (c *claims) take(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.names[name]; taken {
		return false
	}
	if c.names == nil {
		c.names = make(map[string]struct{})
	}
	c.names[name] = struct{}{}
	return true
}

func (c *claims) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.names, name)
}
