//go:build cgo && !nopiv

package token_test

import (
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
)

const device = "piv:serial=13370000"

// TestWrongPIN checks that a wrong PIN reaches the card exactly once, whatever is called and however often the daemon
// is started again, until a person acts.
func TestWrongPIN(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.PIN = fixedPIN("111111")
	backend = b.open(cfg)
	adopted, err := backend.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	err = b.sign(adopted)
	want(t, err, holdfast.ErrAuth, "unlock")
	retries(t, err, 2)
	for range 3 {
		want(t, b.sign(adopted), holdfast.ErrLocked, "unlock")
		_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
		want(t, err, holdfast.ErrLocked)
		if err := backend.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for range 5 { // a crash loop
		if err := backend.Close(); err != nil {
			t.Fatal(err)
		}
		backend = b.open(cfg)
		adopted, err := backend.Key(t.Context(), k.Ref())
		if err != nil {
			t.Fatal(err)
		}
		want(t, b.sign(adopted), holdfast.ErrLocked)
	}
	if left := b.card.PINTries(); left != 2 {
		t.Fatalf("the card has %d tries left, want 2", left)
	}
	status, err := backend.PINStatus(t.Context())
	if err != nil || !status.Refused || status.Retries != 2 {
		t.Errorf("PIN status %+v, %v", status, err)
	}
	if err := backend.Unlock(t.Context(), holdfast.NewSecret([]byte(pin))); err != nil {
		t.Fatal(err)
	}
	adopted, err = backend.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	b.mustSign(adopted)
	if left := b.card.PINTries(); left != 3 {
		t.Errorf("after the right PIN the card has %d tries left", left)
	}
}

// TestLastTry checks that the daemon leaves the last try to a person.
func TestLastTry(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	want(t, backend.Unlock(t.Context(), holdfast.NewSecret([]byte("111111"))), holdfast.ErrAuth)
	err := backend.Unlock(t.Context(), holdfast.NewSecret([]byte("111111")))
	want(t, err, holdfast.ErrAuth)
	retries(t, err, 1)
	b.pins.state = nil // as if nothing was remembered
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	backend = b.open(b.config())
	k, err = backend.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	err = b.sign(k)
	want(t, err, holdfast.ErrLocked, "person")
	retries(t, err, 1)
	status, err := backend.PINStatus(t.Context())
	if err != nil || status.Retries != 1 || status.Note == "" {
		t.Errorf("PIN status %+v, %v", status, err)
	}
	if left := b.card.PINTries(); left != 1 {
		t.Fatalf("the card has %d tries left, want 1", left)
	}
	if err := backend.Unlock(t.Context(), holdfast.NewSecret([]byte(pin))); err != nil {
		t.Fatal(err)
	}
	b.mustSign(k)
}

func TestBlockedPIN(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.PIN = holdfast.PINAlways })
	b.card.Inject(vpiv.Fault{INS: 0x87, Effect: vpiv.BlockPIN{}})
	if err := b.sign(k); err == nil {
		t.Fatal("a key that wants its PIN was used without")
	}
	want(t, b.sign(k), holdfast.ErrLocked, "PUK")
	err := backend.Unlock(t.Context(), holdfast.NewSecret([]byte(pin)))
	want(t, err, holdfast.ErrLocked, "PUK")
	retries(t, err, 0)
	status, err := backend.PINStatus(t.Context())
	if err != nil || status.Retries != 0 || status.Note == "" {
		t.Errorf("PIN status %+v, %v", status, err)
	}
	b.byAnother(backend, func(yk *piv.YubiKey) error { return yk.Unblock(puk, "864209") })
	backend = b.open(b.config())
	if err := backend.Unlock(t.Context(), holdfast.NewSecret([]byte("864209"))); err != nil {
		t.Fatal(err)
	}
	k, err = backend.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	b.mustSign(k)
}

// TestInterruptedPIN checks what happens when the daemon died between giving a PIN and recording the outcome.
func TestInterruptedPIN(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	reopen := func() holdfast.Key {
		t.Helper()
		if err := backend.Close(); err != nil {
			t.Fatal(err)
		}
		b.pins.state = map[string]holdfast.PINState{device: holdfast.PINTrying}
		backend = b.open(b.config())
		again, err := backend.Key(t.Context(), k.Ref())
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	b.mustSign(reopen()) // all tries are there: the PIN was right, or never sent
	if state := b.pins.state[device]; state != holdfast.PINAccepted {
		t.Errorf("the PIN memory says %d", state)
	}
	want(t, backend.Unlock(t.Context(), holdfast.NewSecret([]byte("111111"))), holdfast.ErrAuth)
	want(t, b.sign(reopen()), holdfast.ErrLocked, "unlock")
	if left := b.card.PINTries(); left != 2 {
		t.Errorf("the card has %d tries left, want 2", left)
	}
}

// TestPullDuringVerify checks that a PIN whose outcome was lost with the card is not given again when the card has
// counted it as wrong.
func TestPullDuringVerify(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.PIN = fixedPIN("111111")
	backend = b.open(cfg)
	k, err := backend.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	// The first VERIFY asks for the counter, the second has the PIN.
	b.card.Inject(vpiv.Fault{INS: 0x20, After: 1, Effect: vpiv.Pull{Executed: true}})
	want(t, b.sign(k), holdfast.ErrUnavailable)
	b.reinsert()
	want(t, b.sign(k), holdfast.ErrLocked)
	if left := b.card.PINTries(); left != 2 {
		t.Errorf("the card has %d tries left, want 2", left)
	}
}

func TestPINAlways(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.Idle = time.Hour
	backend := b.open(cfg)
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.PIN = holdfast.PINAlways })
	for range 3 {
		before := b.card.Seen(0x20)
		b.mustSign(k)
		if given := b.card.Seen(0x20) - before; given != 2 { // the counter, and the PIN
			t.Errorf("%d VERIFY commands for one signature", given)
		}
	}
	once := b.generate(backend, nil)
	b.mustSign(once)
	before := b.card.Seen(0x20)
	b.mustSign(once)
	if given := b.card.Seen(0x20) - before; given != 0 {
		t.Errorf("%d VERIFY commands for the second signature of a connection", given)
	}
}

func TestNoPIN(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.PIN = nil
	backend := b.open(cfg)
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.PIN = holdfast.PINNever })
	b.mustSign(k)
	_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
	want(t, err, holdfast.ErrLocked, "unlock")
	if err := backend.Unlock(t.Context(), holdfast.NewSecret([]byte(pin))); err != nil {
		t.Fatal(err)
	}
	b.mustSign(b.generate(backend, nil))
	for _, bad := range []string{"", "123456789"} {
		tries := b.card.Seen(0x20)
		want(t, backend.Unlock(t.Context(), holdfast.NewSecret([]byte(bad))), holdfast.ErrInvalid)
		if b.card.Seen(0x20) != tries {
			t.Errorf("a PIN of %d bytes was given to the card", len(bad))
		}
	}
}

// TestReleased checks that the card is ours alone while in use, that it is let go when idle, and that the next program
// does not find our PIN verified.
func TestReleased(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.Idle = time.Millisecond
	backend := b.open(cfg)
	k := b.generate(backend, nil)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	b.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x82, Effect: vpiv.Hold{Entered: entered, Release: release}})
	signed := make(chan error, 1)
	go func() { signed <- b.sign(k) }()
	<-entered
	if _, err := piv.Open(b.reader.Name(0)); err == nil {
		t.Error("the card was shared while in use")
	}
	close(release)
	if err := <-signed; err != nil {
		t.Fatal(err)
	}
	yk := b.otherWhenFree()
	if left, err := yk.Retries(); err != nil || left != 3 {
		t.Errorf("another program finds our PIN verified: %d, %v", left, err)
	}
	want(t, b.sign(k), holdfast.ErrBusy, "another program")
	want(t, backend.Probe(t.Context()), holdfast.ErrBusy)
	if err := yk.Close(); err != nil {
		t.Fatal(err)
	}
	b.mustSign(k)
}

// otherWhenFree waits until the card was let go of; each attempt is a round trip to the PC/SC daemon.
func (b *bench) otherWhenFree() *piv.YubiKey {
	b.t.Helper()
	for b.t.Context().Err() == nil {
		if yk, err := piv.Open(b.reader.Name(0)); err == nil {
			return yk
		}
	}
	b.t.Fatal("the card was never let go of")
	return nil
}
