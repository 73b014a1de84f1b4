//go:build cgo && !nopiv

package token

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// Backend is one PIV card, in whatever reader it is. It works through one command at a time.
type Backend struct {
	cfg     Config
	serial  uint32      // set by Open
	version piv.Version // set by Open

	capsMu sync.Mutex
	caps   holdfast.Capabilities // guarded by capsMu: what the card turns out not to have is taken out

	// turn holds a value while somebody uses the card; it is a channel so that waiting for it ends with a context. It
	// guards everything below.
	turn    chan struct{}
	session *session    // nil while the card is released
	idle    *time.Timer // releases the card
	reader  string      // where the card was last
	stuck   string      // a reader that piv-go keeps locked, see openError
	closed  bool

	lastPIN holdfast.PINState          // what became of the last PIN in this process
	person  holdfast.Secret            // the PIN a person gave by Unlock; used instead of the configured one from then on
	key     []byte                     // the management key that worked last
	planned map[string]bool            // slots that Plan gave out and Generate did not yet use
	nonces  map[holdfast.Ref]signature // the last ECDSA signature of each key

	noMetadata, noAttest bool // the card has no such command, whatever its version says
}

var (
	_ holdfast.Backend   = (*Backend)(nil)
	_ holdfast.Destroyer = (*Backend)(nil)
	_ holdfast.Planner   = (*Backend)(nil)
	_ holdfast.Unlocker  = (*Backend)(nil)
	_ holdfast.Prober    = (*Backend)(nil)
)

// Open connects to a PIV card and asks it what it can do. It changes nothing on it and gives it no PIN. It returns
// ErrUnavailable when there is no such card, ErrBusy when another program uses it, ErrInvalid for a Config that cannot
// work or that fits more than one card, ErrUnsupported for a card that this package cannot work with.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if err := cfg.check(); err != nil {
		return nil, translate("open", "", err)
	}
	if err := setEnvironment(cfg.Environment); err != nil {
		return nil, translate("open", "", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	b := &Backend{
		cfg: cfg, serial: cfg.Serial, turn: make(chan struct{}, 1),
		planned: make(map[string]bool), nonces: make(map[holdfast.Ref]signature),
	}
	b.idle = time.AfterFunc(cfg.Idle, b.releaseIdle)
	b.idle.Stop()
	if err := b.acquire(ctx); err != nil {
		return nil, err
	}
	defer b.release()
	if err := b.introduce(); err != nil {
		return nil, translate("open", "", err)
	}
	return b, nil
}

// setEnvironment sets what the PC/SC library reads at its first call.
func setEnvironment(environment map[string]string) error {
	for name, value := range environment {
		if old, ok := os.LookupEnv(name); ok && old != value {
			return holdfast.Errorf(holdfast.ErrInvalid, "",
				"%s is already %q in this process, and PC/SC reads it only once", name, old)
		}
		if err := os.Setenv(name, value); err != nil {
			return holdfast.Errorf(holdfast.ErrInvalid, "", "environment: %w", err)
		}
	}
	return nil
}

// introduce connects for the first time and fills in what is known of the card from then on.
func (b *Backend) introduce() error {
	s, err := b.connect()
	if err != nil {
		return err
	}
	b.serial, b.version, b.reader = s.serial, s.yk.Version(), s.reader
	b.session = s
	b.disconnect()
	offers, err := b.probe(s.reader)
	if err != nil {
		return err
	}
	b.caps = holdfast.Capabilities{
		Kind: Kind,
		Device: holdfast.Device{
			Model:    "PIV card",
			Serial:   strconv.FormatUint(uint64(b.serial), 10),
			Firmware: versionText(b.version),
		},
		DefaultResidence: holdfast.Resident,
		Places:           offers.places,
		Distrust:         offers.distrust,
	}
	for _, a := range holdfast.Algorithms() {
		if need, ok := needs[a]; ok && b.atLeast(need.major, need.minor) && !offers.lacks[need.identifier] {
			b.caps.Algorithms = append(b.caps.Algorithms, holdfast.Support{Algorithm: a, Resident: true})
		}
	}
	return nil
}

func versionText(v piv.Version) string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

func (b *Backend) atLeast(major, minor int) bool {
	return b.version.Major > major || b.version.Major == major && b.version.Minor >= minor
}

// Capabilities returns what the card can do: what its version promises, without what it was found not to have.
func (b *Backend) Capabilities() holdfast.Capabilities {
	b.capsMu.Lock()
	defer b.capsMu.Unlock()
	caps := b.caps
	caps.Algorithms, caps.Places = slices.Clone(caps.Algorithms), slices.Clone(caps.Places)
	return caps
}

// withdraw takes an algorithm that the card refused out of the capabilities.
func (b *Backend) withdraw(a holdfast.Algorithm) {
	b.capsMu.Lock()
	defer b.capsMu.Unlock()
	b.caps.Algorithms = slices.DeleteFunc(slices.Clone(b.caps.Algorithms), func(s holdfast.Support) bool {
		return needs[s.Algorithm].identifier == needs[a].identifier
	})
}

// Close waits for the command in flight, forgets the PIN and releases the card.
func (b *Backend) Close() error {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.closed {
		return nil
	}
	b.closed = true
	b.idle.Stop()
	b.person.Wipe()
	clear(b.key)
	b.disconnect()
	return nil
}

// acquire waits for the card to be free of our own users.
func (b *Backend) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.turn <- struct{}{}:
		b.idle.Stop()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Backend) release() {
	if b.session != nil && !b.closed {
		b.idle.Reset(b.cfg.Idle)
	}
	<-b.turn
}

// releaseIdle runs when the card was unused for Config.Idle.
func (b *Backend) releaseIdle() {
	select {
	case b.turn <- struct{}{}:
		b.disconnect()
		<-b.turn
	default: // in use again; whoever uses it sets the timer anew
	}
}

// do runs f with a connection to the card. A connection that was kept and turns out to be dead, because the card was
// taken out and put back meanwhile, is replaced and f run again, unless f had already given a PIN or changed something.
func (b *Backend) do(ctx context.Context, op string, ref holdfast.Ref, f func(*session) error) error {
	if err := b.acquire(ctx); err != nil {
		return err
	}
	defer b.release()
	again, err := b.attempt(f)
	if again {
		_, err = b.attempt(f)
	}
	return translate(op, ref, err)
}

func (b *Backend) attempt(f func(*session) error) (again bool, err error) {
	if b.closed {
		return false, holdfast.Errorf(holdfast.ErrUnavailable, "", "the backend is closed")
	}
	kept := b.session != nil
	if !kept {
		if b.session, err = b.connect(); err != nil {
			return false, err
		}
	}
	s := b.session
	s.committed = false
	err = f(s)
	if !gone(err) {
		return false, err
	}
	again = kept && !s.committed
	s.verified = false // whatever it was, there is nothing left to reset
	b.disconnect()
	return again, err
}

// Probe asks the card for its PIN counter, which costs nothing.
func (b *Backend) Probe(ctx context.Context) error {
	return b.do(ctx, "probe", "", func(s *session) error {
		_, err := s.retries()
		return err
	})
}
