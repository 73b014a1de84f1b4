//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// Backend is an open PKCS#11 token. It implements holdfast.Backend, Destroyer, Planner, Loader, Unlocker and Prober.
type Backend struct {
	cfg     Config
	modules *Modules
	mod     *module
	token   pkcs11.TokenInfo // as it was when opened; label and serial do not change
	pins    *pins
	jobs    jobPool

	current atomic.Pointer[connection] // nil while there is none
	profile atomic.Pointer[profile]    // nil until the first login
	caps    atomic.Pointer[holdfast.Capabilities]
	keys    sync.Map // canonical holdfast.Ref to *key

	mu     sync.Mutex
	making *attempt // guarded by mu
	closed bool     // guarded by mu

	kekMu    sync.Mutex   // serializes making the key-wrapping key
	attestMu sync.Mutex   // serializes making the attestation key
	attests  *residentKey // the attestation key once it is known; guarded by attestMu
}

var (
	_ holdfast.Backend   = (*Backend)(nil)
	_ holdfast.Destroyer = (*Backend)(nil)
	_ holdfast.Planner   = (*Backend)(nil)
	_ holdfast.Loader    = (*Backend)(nil)
	_ holdfast.Unlocker  = (*Backend)(nil)
	_ holdfast.Prober    = (*Backend)(nil)
)

// Open opens the token that cfg names, logs in, finds out what it can do and attacks a sacrificial session key.
//
// A token that refuses the PIN, or refused it before, is opened all the same: everything but Unlock and PINStatus then
// fails with ErrAuth or ErrLocked, and Capabilities name no algorithm until Unlock succeeds. Open returns ErrInvalid
// for a configuration that cannot work, such as a Module that is not a PKCS#11 library, and ErrUnavailable when the
// token is not there.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Backend{cfg: cfg, modules: cfg.Modules}
	if b.modules == nil {
		b.modules = NewModules()
	}
	if b.mod, err = b.modules.acquire(cfg); err != nil {
		return nil, err
	}
	if err := b.open(ctx); err != nil {
		_ = b.Close()
		return nil, failure("open", "", err)
	}
	return b, nil
}

func (b *Backend) open(ctx context.Context) error {
	at, err := b.find(ctx, locateTries)
	if err != nil {
		return err
	}
	b.token = at.token
	b.pins = newPINs(&b.cfg, at.token)
	b.setCapabilities(nil)
	_, err = b.connection(ctx)
	if code := holdfast.CodeOf(err); err != nil && code != holdfast.ErrAuth && code != holdfast.ErrLocked {
		return err
	}
	return nil
}

// Close ends the sessions, and finalizes the module when no other backend uses it.
func (b *Backend) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	making := b.making
	b.mu.Unlock()
	if making != nil {
		<-making.done
	}
	var err error
	if c := b.current.Swap(nil); c != nil {
		err = c.wait(b.cfg.CallTimeout)
	}
	return errors.Join(err, b.modules.release(b.mod, b.cfg.CallTimeout))
}

// attempt is one attempt to make a connection. All who need one wait for the same.
type attempt struct {
	done chan struct{} // closed when c and err are set
	c    *connection
	err  error
}

// preparation is what is different about the next connection.
type preparation struct {
	pin    *holdfast.Secret                             // given by a person
	before func(context.Context, *connection, *session) // runs before the user logs in
}

// connection returns the current connection or makes one.
func (b *Backend) connection(ctx context.Context) (*connection, error) {
	if c := b.current.Load(); c != nil {
		return c, nil
	}
	return b.connect(ctx, preparation{})
}

// connect makes a connection unless there is one. With a PIN it makes its own attempt if one that is under way fails.
// Otherwise the failure of one attempt that was begun before does not count: the token may have come back since.
func (b *Backend) connect(ctx context.Context, p preparation) (*connection, error) {
	for joined := false; ; joined = true {
		a, own, err := b.attempt(ctx, p, false)
		if err != nil {
			return nil, err
		}
		if err := a.wait(ctx); err != nil {
			return nil, err
		}
		stale := !joined && errors.Is(a.err, holdfast.ErrUnavailable)
		if a.err == nil || own || p.pin == nil && !stale {
			return a.c, a.err
		}
	}
}

// reconnect ends the current connection, if there is one, and makes another.
func (b *Backend) reconnect(ctx context.Context, p preparation) (*connection, error) {
	for {
		a, own, err := b.attempt(ctx, p, true)
		if err != nil {
			return nil, err
		}
		if err := a.wait(ctx); err != nil {
			return nil, err
		}
		if own {
			return a.c, a.err
		}
	}
}

// attempt returns the attempt that is under way, or begins one and reports that it is the caller's own. Where there is a
// connection already it is the outcome of the attempt, unless it is to be renewed.
func (b *Backend) attempt(ctx context.Context, p preparation, renew bool) (a *attempt, own bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.current.Load()
	switch {
	case b.closed:
		return nil, false, holdfast.Errorf(holdfast.ErrUnavailable, "", "the backend is closed")
	case b.making != nil:
		return b.making, false, nil
	case old != nil && !renew:
		a = &attempt{done: make(chan struct{}), c: old}
		close(a.done)
		return a, true, nil
	}
	a = &attempt{done: make(chan struct{})}
	b.making = a
	b.current.Store(nil)
	ctx = context.WithoutCancel(ctx) // it serves all who wait for it; its starter going away does not end it
	go b.finish(a, func() (*connection, error) {
		if old != nil {
			if err := old.wait(b.cfg.CallTimeout); err != nil {
				return nil, err
			}
		}
		return b.dial(ctx, p)
	})
	return a, true, nil
}

// wait waits for the attempt to end.
func (a *attempt) wait(ctx context.Context) error {
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish carries out an attempt.
func (b *Backend) finish(a *attempt, dial func() (*connection, error)) {
	a.c, a.err = dial()
	b.mu.Lock()
	b.making = nil
	if a.err == nil {
		b.current.Store(a.c)
	}
	b.mu.Unlock()
	close(a.done)
}

// dial finds the token, opens sessions, logs in, and the first time finds out what the token can do.
func (b *Backend) dial(ctx context.Context, p preparation) (*connection, error) {
	at, err := b.find(ctx, 2)
	if err != nil {
		return nil, err
	}
	var c *connection
	var sessions []*session
	err = b.mod.call(b.cfg.CallTimeout, func() (err error) {
		if !b.mod.enter(at.epoch) {
			return errExpired
		}
		defer b.mod.leave()
		n := b.cfg.sessions(int(at.token.MaxSessionCount))
		c, sessions, err = open(b.mod, at.slot, at.epoch, n, b.cfg.WrappedCache)
		return err
	})
	if err != nil {
		return nil, unavailable(err)
	}
	if err := b.prepare(ctx, c, sessions[0], at, p); err != nil {
		b.abandon(c, sessions)
		return nil, unavailable(err)
	}
	c.start(sessions)
	return c, nil
}

func (b *Backend) prepare(ctx context.Context, c *connection, s *session, at place, p preparation) error {
	c.profile = b.profile.Load()
	if p.before != nil {
		p.before(ctx, c, s)
	}
	if err := b.logIn(ctx, s, at, p.pin); err != nil {
		return err
	}
	c.loggedIn = at.token.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0
	if p.pin != nil {
		b.pins.keep(*p.pin)
	}
	if c.profile != nil {
		return nil
	}
	var found *profile
	err := b.mod.call(generateFactor*b.cfg.CallTimeout, func() error {
		if !b.mod.enter(c.epoch) {
			return errExpired
		}
		defer b.mod.leave()
		found = discover(s)
		return nil
	})
	if err != nil {
		return err
	}
	b.profile.Store(found)
	b.setCapabilities(found)
	return nil
}

// abandon closes sessions that were never started.
func (b *Backend) abandon(c *connection, sessions []*session) {
	c.end()
	_ = b.mod.call(b.cfg.CallTimeout, func() error {
		if b.mod.enter(c.epoch) {
			closeAll(sessions)
			b.mod.leave()
		}
		return nil
	})
}

// drop ends c, so that the next call makes another connection.
func (b *Backend) drop(c *connection) {
	b.current.CompareAndSwap(c, nil)
	c.end()
}

// run does op on a session, and once more on a new connection when the token went away in between. An op that changed
// something on the token returns its error wrapped in errChanged, and is not repeated.
func (b *Backend) run(ctx context.Context, op func(*session) error) error {
	return b.repeat(ctx, false, op)
}

// ask is run for an operation that returns something. What it wrote for the caller must not be looked at when it failed:
// a call that was given up may still be writing.
func ask[T any](ctx context.Context, b *Backend, op func(*session) (T, error)) (T, error) {
	return askFor(ctx, b, false, op)
}

// askLong is ask for operations that make keys.
func askLong[T any](ctx context.Context, b *Backend, op func(*session) (T, error)) (T, error) {
	return askFor(ctx, b, true, op)
}

func askFor[T any](ctx context.Context, b *Backend, long bool, op func(*session) (T, error)) (T, error) {
	var got, none T
	err := b.repeat(ctx, long, func(s *session) (err error) {
		got, err = op(s)
		return err
	})
	if err != nil {
		return none, err
	}
	return got, nil
}

func (b *Backend) repeat(ctx context.Context, long bool, op func(*session) error) error {
	limit := b.cfg.CallTimeout
	if long {
		limit *= generateFactor
	}
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := b.connection(ctx)
		if err != nil {
			return err
		}
		err = c.do(ctx, &b.jobs, limit, op)
		if err == nil {
			return nil
		}
		again := b.heal(ctx, c, err)
		if !again || try > 1 {
			return expired(err)
		}
	}
}

// expired gives a code to the error of a connection that ended under a call.
func expired(err error) error {
	if errors.Is(err, errExpired) {
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the token was away for a moment: %w", err)
	}
	return err
}

// errChanged wraps the error of an operation that must not be repeated.
type errChanged struct{ error }

func (e errChanged) Unwrap() error { return e.error }

// heal looks at the error of a call on c, ends c when its token is gone, and reports whether the call may work on
// another try.
func (b *Backend) heal(ctx context.Context, c *connection, err error) bool {
	_, changed := errors.AsType[errChanged](err)
	switch {
	case errors.Is(err, errExpired) || errors.Is(err, errStuck) || returned(err, lostValues[:]...):
		b.drop(c)
		return !changed && !errors.Is(err, errStuck)
	case returned(err, handleValues[:]...):
		if !b.alive(ctx, c) {
			b.drop(c)
		} else {
			c.forget()
		}
		return !changed
	case returned(err, vagueValues[:]...):
		if !b.alive(ctx, c) {
			b.drop(c)
			return !changed
		}
	}
	return false
}

// alive asks whether the token of c is still there. OpenSession and GetSessionInfo do not tell: SoftHSM2 answers them
// when its files are gone.
func (b *Backend) alive(ctx context.Context, c *connection) bool {
	ctx = context.WithoutCancel(ctx) // a caller that leaves says nothing of the token
	return c.do(ctx, &b.jobs, b.cfg.CallTimeout, func(s *session) error {
		if _, err := s.p11.GetTokenInfo(c.slot); err != nil {
			return err
		}
		return s.checkLogin()
	}) == nil
}

// Probe asks the token for its CK_TOKEN_INFO and logs in again where that is needed and no PIN was refused.
func (b *Backend) Probe(ctx context.Context) error {
	err := b.run(ctx, func(s *session) error {
		if _, err := s.p11.GetTokenInfo(s.c.slot); err != nil {
			return fmt.Errorf("C_GetTokenInfo: %w", err)
		}
		return s.checkLogin()
	})
	return failure("probe", "", unavailable(err))
}

// Capabilities returns what was found out about the token at the first login.
func (b *Backend) Capabilities() holdfast.Capabilities {
	caps := *b.caps.Load()
	caps.Algorithms = slices.Clone(caps.Algorithms)
	return caps
}

func (b *Backend) setCapabilities(p *profile) {
	caps := holdfast.Capabilities{
		Kind:             "pkcs11",
		DefaultResidence: holdfast.Resident,
		Device: holdfast.Device{
			Manufacturer: trim(b.token.ManufacturerID),
			Model:        trim(b.token.Model),
			Serial:       trim(b.token.SerialNumber),
			Firmware:     fmt.Sprintf("%d.%d", b.token.FirmwareVersion.Major, b.token.FirmwareVersion.Minor),
			Label:        trim(b.token.Label),
		},
		Distrust: "nobody has logged in yet, so nothing was tested",
	}
	if p != nil {
		caps.Algorithms, caps.Distrust = p.supported(), p.distrust()
	}
	b.caps.Store(&caps)
}
