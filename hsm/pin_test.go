//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// countedPIN returns a PIN source and how often it was asked.
func countedPIN(pin string) (func(context.Context) (holdfast.Secret, error), *atomic.Int32) {
	var asked atomic.Int32
	return func(context.Context) (holdfast.Secret, error) {
		asked.Add(1)
		return holdfast.NewSecret([]byte(pin)), nil
	}, &asked
}

// TestWrongPINIsTriedOnce opens a token with a wrong PIN as often as a crash loop would.
func TestWrongPINIsTriedOnce(t *testing.T) {
	token := softhsmtest.TokenFor(t, "wrong PIN")
	cfg := configOf(token)
	var asked *atomic.Int32
	cfg.PIN, asked = countedPIN("9999")
	cfg.PINMemory = &memory{states: map[string]holdfast.PINState{}}
	for try := range 3 {
		b, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatalf("a token that refuses the PIN still opens: %v", err)
		}
		for range 3 {
			_, err = b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
			if !errors.Is(err, holdfast.ErrLocked) {
				t.Errorf("start %d: generate after a refused PIN: %v", try, err)
			}
			if err := b.Probe(t.Context()); !errors.Is(err, holdfast.ErrLocked) {
				t.Errorf("start %d: probe after a refused PIN: %v", try, err)
			}
		}
		if caps := b.Capabilities(); len(caps.Algorithms) != 0 || caps.Distrust == "" || caps.Device.Label != token.Label {
			t.Errorf("capabilities before the first login: %+v", caps)
		}
		status, err := b.PINStatus(t.Context())
		if err != nil || !status.Refused || status.Note == "" {
			t.Errorf("PIN status: %+v, %v", status, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the wrong PIN was asked for, and so given to the token, %d times", n)
	}

	b := openConfig(t, cfg)
	if err := b.Unlock(t.Context(), holdfast.NewSecret([]byte("8888"))); !errors.Is(err, holdfast.ErrAuth) {
		t.Errorf("unlock with a wrong PIN: %v", err)
	}
	if _, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256}); !errors.Is(err, holdfast.ErrLocked) {
		t.Errorf("generate after a second refusal: %v", err)
	}
	if err := b.Unlock(t.Context(), holdfast.NewSecret([]byte(token.PIN))); err != nil {
		t.Fatalf("unlock: %v", err)
	}
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	p11, slot := other(t, b)
	if err := p11.CloseAllSessions(slot); err != nil {
		t.Fatal(err)
	}
	signs(t, k) // logs in again with the PIN that the person gave
	if n := asked.Load(); n != 1 {
		t.Errorf("after the unlock the configured PIN was asked for again: %d times", n)
	}
	if status, err := b.PINStatus(t.Context()); err != nil || status.Refused {
		t.Errorf("PIN status after the unlock: %+v, %v", status, err)
	}
}

// TestFirstRefusalIsErrAuth checks what the call that meets the refusal says.
func TestFirstRefusalIsErrAuth(t *testing.T) {
	b, token := softHSM(t)
	p11, slot := other(t, b)
	b.pins.source, _ = countedPIN("9999")
	if err := p11.CloseAllSessions(slot); err != nil {
		t.Fatal(err)
	}
	if err := b.Probe(t.Context()); !errors.Is(err, holdfast.ErrAuth) {
		t.Errorf("probe that meets a refused PIN: %v", err)
	}
	_, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
	if !errors.Is(err, holdfast.ErrLocked) {
		t.Errorf("the next generate: %v", err)
	}
	if err := b.Unlock(t.Context(), holdfast.NewSecret([]byte(token.PIN))); err != nil {
		t.Errorf("unlock: %v", err)
	}
}

// TestPINWhoseOutcomeIsUnknown starts where a crash left PINTrying behind.
func TestPINWhoseOutcomeIsUnknown(t *testing.T) {
	token := softhsmtest.TokenFor(t, "crash")
	cfg := configOf(token)
	states := &memory{states: map[string]holdfast.PINState{}}
	cfg.PINMemory = states
	b := openConfig(t, cfg)
	device := b.pins.device
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	states.states[device] = holdfast.PINTrying
	b = openConfig(t, cfg)
	generate(t, b, holdfast.ES256, holdfast.Resident) // the token shows no sign of a wrong PIN
	if states.states[device] != holdfast.PINAccepted {
		t.Errorf("after a login the memory has %d", states.states[device])
	}
	p11, slot := other(t, b)
	s, err := p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := p11.Logout(s); err != nil {
		t.Fatal(err)
	}
	if err := p11.Login(s, pkcs11.CKU_USER, "0000"); err == nil {
		t.Fatal("the token takes any PIN")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	states.states[device] = holdfast.PINTrying
	b = openConfig(t, cfg)
	if _, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256}); !errors.Is(err, holdfast.ErrLocked) {
		t.Errorf("a PIN of unknown outcome and a token that saw a wrong one: %v", err)
	}
}

func TestPINAtEveryUse(t *testing.T) {
	token := softhsmtest.TokenFor(t, "always")
	cfg := configOf(token)
	var asked *atomic.Int32
	cfg.PIN, asked = countedPIN(token.PIN)
	b := openConfig(t, cfg)
	spec := holdfast.KeySpec{Label: "always", Algorithm: holdfast.ES256, PIN: holdfast.PINAlways}
	k, err := b.Generate(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	signs(t, k)
	signs(t, k)
	if n := asked.Load() - before; n != 2 {
		t.Errorf("two signatures asked for the PIN %d times", n)
	}
	plain := generate(t, b, holdfast.ES256, holdfast.Resident)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openConfig(t, cfg)
	again, err := b.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	signs(t, again)
	b.pins.source, _ = countedPIN("9999")
	signCode(t, again, holdfast.ErrAuth)
	signCode(t, again, holdfast.ErrLocked)
	other, err := b.Key(t.Context(), plain.Ref())
	if err != nil {
		t.Fatal(err)
	}
	signs(t, other) // needs no PIN: the session is logged in
	for _, bad := range []holdfast.KeySpec{
		{Label: "x", Algorithm: holdfast.ES256, PIN: holdfast.PINAlways, Residence: holdfast.Wrapped},
		{Label: "x", Algorithm: holdfast.ECDHP256, PIN: holdfast.PINAlways},
		{Label: "x", Algorithm: holdfast.ES256, PIN: holdfast.PINNever},
		{Label: "x", Algorithm: holdfast.ES256, Touch: holdfast.TouchAlways},
	} {
		if _, err := b.Generate(t.Context(), bad); !errors.Is(err, holdfast.ErrUnsupported) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
