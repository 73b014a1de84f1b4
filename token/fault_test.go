//go:build cgo && !nopiv

package token_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
)

// The instructions that faults strike.
const (
	insAuthenticate  = 0x87
	insGenerate      = 0x47
	insPutData       = 0xDB
	insSelect        = 0xA4
	insMetadata      = 0xF7
	insAttest        = 0xF9
	insSetManagement = 0xFF
)

func TestPullDuringSign(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	for _, executed := range []bool{false, true} {
		b.card.Inject(vpiv.Fault{INS: insAuthenticate, Effect: vpiv.Pull{Executed: executed}})
		want(t, b.sign(k), holdfast.ErrUnavailable)
		want(t, b.sign(k), holdfast.ErrUnavailable)
		b.reinsert()
		b.mustSign(k)
	}
	b.card.Inject(vpiv.Fault{INS: insAuthenticate, Effect: vpiv.Cut{}})
	want(t, b.sign(k), holdfast.ErrUnavailable)
	b.reinsert()
	b.mustSign(k)
}

// TestReinsertedWhileIdle checks that a card that was out for a moment costs no failed call.
func TestReinsertedWhileIdle(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	b.mustSign(k)
	b.remove()
	b.insert(b.card)
	b.mustSign(k)
	b.remove()
	b.insert(b.card)
	b.mustSign(b.generate(backend, nil))
	always := b.generate(backend, func(s *holdfast.KeySpec) { s.PIN = holdfast.PINAlways })
	b.remove()
	b.insert(b.card)
	b.mustSign(always)
	b.remove()
	want(t, backend.Probe(t.Context()), holdfast.ErrUnavailable)
	_, err := token.Open(t.Context(), b.config())
	want(t, err, holdfast.ErrUnavailable, "no card")
	b.insert(b.card)
	if err := backend.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPullDuringGenerate pulls the card at every command of Generate in turn, after the card carried it out (had it not,
// the card would be as after the command before), and checks that what is left is nothing, a whole key, or half a key
// that Keys reports; and that Destroy of the planned ref clears the slot whatever it is.
func TestPullDuringGenerate(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	spec, ref, err := backend.Plan(t.Context(), holdfast.KeySpec{Label: "pulled", Algorithm: holdfast.ES256, Place: "9c"})
	if err != nil {
		t.Fatal(err)
	}
	for after := 0; ; after++ {
		if err := backend.Probe(t.Context()); err != nil { // so that the connection is there
			t.Fatal(err)
		}
		pull := b.card.Inject(vpiv.Fault{After: after, Effect: vpiv.Pull{Executed: true}})
		_, err := backend.Generate(t.Context(), spec)
		if pull.Struck() == 0 {
			if err != nil || after < 10 {
				t.Fatalf("after %d commands: %v", after, err)
			}
			pull.Lift()
			break
		}
		want(t, err, holdfast.ErrUnavailable)
		b.reinsert()
		b.checkLeft(backend, ref)
	}
	if err := backend.Destroy(t.Context(), ref); err != nil {
		t.Error(err)
	}
}

// checkLeft checks and clears what an interrupted Generate or Destroy left under ref.
func (b *bench) checkLeft(backend *token.Backend, ref holdfast.Ref) {
	b.t.Helper()
	refs, problems := b.list(backend)
	for _, err := range problems {
		e, ok := errors.AsType[*holdfast.Error](err)
		if !ok || e.Code != holdfast.ErrIntegrity || e.Ref != ref {
			b.t.Errorf("left behind: %v", err)
		}
	}
	there := len(problems) > 0 || slices.Contains(refs, ref)
	if _, err := backend.Key(b.t.Context(), ref); slices.Contains(refs, ref) != (err == nil) {
		b.t.Errorf("listed: %v, found: %v", refs, err)
	}
	err := backend.Destroy(b.t.Context(), ref)
	if there && err != nil || !there && !errors.Is(err, holdfast.ErrNotFound) {
		b.t.Fatalf("clean up (something is there: %v): %v", there, err)
	}
	if refs, problems := b.list(backend); len(refs)+len(problems) > 0 {
		b.t.Fatalf("after cleaning up: %v, %v", refs, problems)
	}
}

func TestPullDuringDestroy(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	for after := 0; ; after++ {
		ref := b.generate(backend, func(s *holdfast.KeySpec) { s.Place = "82" }).Ref()
		pull := b.card.Inject(vpiv.Fault{After: after, Effect: vpiv.Pull{Executed: true}})
		err := backend.Destroy(t.Context(), ref)
		if pull.Struck() == 0 {
			if err != nil || after < 10 {
				t.Fatalf("after %d commands: %v", after, err)
			}
			pull.Lift()
			return
		}
		want(t, err, holdfast.ErrUnavailable)
		b.reinsert()
		b.checkLeft(backend, ref)
	}
}

// TestFailedGenerate lets each step of Generate fail while the card stays, and checks that nothing is left.
func TestFailedGenerate(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	if err := backend.Destroy(t.Context(), b.generate(backend, nil).Ref()); err != nil { // the management key is rotated now
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		fault vpiv.Fault
		want  holdfast.Code
	}{
		"no room":              {vpiv.Fault{INS: insPutData, Effect: vpiv.Answer(0x6A84)}, holdfast.ErrBusy},
		"no room later":        {vpiv.Fault{INS: insPutData, After: 1, Effect: vpiv.Answer(0x6A84)}, holdfast.ErrBusy},
		"generation fails":     {vpiv.Fault{INS: insGenerate, Effect: vpiv.Answer(0x6F00)}, holdfast.ErrInternal},
		"wrong public key":     {vpiv.Fault{INS: insGenerate, Effect: vpiv.WrongAnswer{}}, holdfast.ErrInternal},
		"wrong test signature": {vpiv.Fault{INS: insAuthenticate, Slot: 0x82, Effect: vpiv.WrongAnswer{}}, holdfast.ErrIntegrity},
		"no test signature":    {vpiv.Fault{INS: insAuthenticate, Slot: 0x82, Effect: vpiv.Answer(0x6F00)}, holdfast.ErrInternal},
	} {
		t.Run(name, func(t *testing.T) {
			fault := b.card.Inject(c.fault)
			defer fault.Lift()
			_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256, Place: "82"})
			want(t, err, c.want)
			if fault.Struck() == 0 {
				t.Error("the fault struck nothing")
			}
			if refs, problems := b.list(backend); len(refs)+len(problems) > 0 {
				t.Errorf("left behind: %v, %v", refs, problems)
			}
		})
	}
	b.mustSign(b.generate(backend, func(s *holdfast.KeySpec) { s.Place = "82" }))
}

func TestWrongAnswer(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.EdDSA, holdfast.RS256_2048} {
		k := b.generate(backend, func(s *holdfast.KeySpec) { s.Algorithm = a })
		b.card.Inject(vpiv.Fault{INS: insAuthenticate, Effect: vpiv.WrongAnswer{}})
		want(t, b.sign(k), holdfast.ErrIntegrity)
		b.mustSign(k)
	}
}

// TestNotOffered checks cards that lack a command their version promises.
func TestNotOffered(t *testing.T) {
	lacks := vpiv.Answer(0x6D00)
	t.Run("attest", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		b.card.Inject(vpiv.Fault{INS: insAttest, Lasting: true, Effect: lacks})
		backend := b.open(b.config())
		k := b.generate(backend, nil)
		b.mustSign(k)
		challenge := sha256.Sum256(nil)
		_, err := k.(holdfast.Attester).Attest(t.Context(), challenge[:])
		want(t, err, holdfast.ErrUnsupported)
	})
	t.Run("metadata", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		backend := b.open(b.config())
		ref := b.generate(backend, nil).Ref()
		if err := backend.Close(); err != nil {
			t.Fatal(err)
		}
		b.card.Inject(vpiv.Fault{INS: insMetadata, Lasting: true, Effect: lacks})
		backend = b.open(b.config())
		k, err := backend.Key(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		b.mustSign(k)
		// piv-go asks the metadata for the kind of the management key.
		_, err = backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256, Place: "9a"})
		want(t, err, holdfast.ErrUnsupported, "management key")
	})
	t.Run("set management key", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		fault := b.card.Inject(vpiv.Fault{INS: insSetManagement, Lasting: true, Effect: lacks})
		backend := b.open(b.config())
		b.mustSign(b.generate(backend, nil))
		if fault.Struck() == 0 {
			t.Error("rotation was not tried")
		}
		health, err := backend.Health(t.Context())
		if err != nil || health.DefaultManagementKey != token.Yes {
			t.Errorf("health %+v, %v", health, err)
		}
	})
	t.Run("algorithm", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		backend := b.open(b.config())
		b.generate(backend, nil)
		b.card.Inject(vpiv.Fault{INS: insGenerate, Effect: vpiv.Answer(0x6A80)})
		_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.PS256_3072})
		want(t, err, holdfast.ErrUnsupported)
		for _, a := range []holdfast.Algorithm{holdfast.PS256_3072, holdfast.RS256_3072} {
			if backend.Capabilities().Supports(a, holdfast.Resident) {
				t.Errorf("%s is still offered", a)
			}
		}
	})
	t.Run("protection", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		b.card.Inject(vpiv.Fault{INS: insGenerate, Effect: vpiv.Answer(0x9000)})
		if b.open(b.config()).Capabilities().Distrust == "" {
			t.Error("a card that makes keys for everybody is trusted")
		}
	})
	t.Run("old algorithms", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		b.card.Inject(vpiv.Fault{INS: insGenerate, Effect: vpiv.Answer(0x6A80)})
		caps := b.open(b.config()).Capabilities()
		if caps.Supports(holdfast.EdDSA, holdfast.Resident) || !caps.Supports(holdfast.ECDHX25519, holdfast.Resident) {
			t.Errorf("the card refuses Ed25519 and offers %v", caps.Algorithms)
		}
	})
	t.Run("serial number", func(t *testing.T) {
		b := newBench(t, vpiv.Config{})
		b.card.Inject(vpiv.Fault{INS: 0xF8, Lasting: true, Effect: lacks})
		_, err := token.Open(t.Context(), b.config())
		want(t, err, holdfast.ErrUnsupported, "serial")
	})
}

// TestSlowCard checks that a caller who waits for the card gives up when its context ends, and that a command in the
// card is waited for.
func TestSlowCard(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	b.card.Inject(vpiv.Fault{INS: insAuthenticate, Effect: vpiv.Hold{Entered: entered, Release: release}})
	first := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		digest := k.Algorithm().Digest(nil)
		_, err := k.Sign(ctx, digest, nil)
		first <- err
	}()
	<-entered
	waiting, giveUp := context.WithCancelCause(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := k.Sign(waiting, k.Algorithm().Digest(nil), nil)
		second <- err
	}()
	giveUp(errors.New("the caller has gone"))
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the second caller got %v", err)
	}
	cancel() // too late for the command in the card
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the first caller got %v", err)
	}
}

// TestNoPIVCard checks that a card without a PIV application locks nothing: piv.Open alone would keep the reader.
func TestNoPIVCard(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	b.remove()
	stranger := newCard(t, vpiv.Config{Serial: 1})
	stranger.Inject(vpiv.Fault{INS: insSelect, Lasting: true, Effect: vpiv.Answer(0x6A82)})
	b.insert(stranger)
	for range 3 {
		want(t, b.sign(k), holdfast.ErrUnavailable, "not a PIV card")
	}
	b.remove()
	b.insert(b.card)
	b.mustSign(k)
}

// TestPullDuringOpen takes the card out at the one moment at which piv-go keeps the reader locked, and checks that this
// is said.
func TestPullDuringOpen(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	b.remove()
	b.insert(b.card)
	// The connection that was kept is dead; the first SELECT is our own.
	b.card.Inject(vpiv.Fault{INS: insSelect, After: 1, Effect: vpiv.Pull{}})
	want(t, b.sign(k), holdfast.ErrUnavailable, "restart")
	b.reinsert()
	want(t, b.sign(k), holdfast.ErrUnavailable, "restart")
}

// TestPullWithoutMemory is TestPullDuringVerify for a backend that remembers in memory only.
func TestPullWithoutMemory(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.PINMemory, cfg.PIN = nil, fixedPIN("111111")
	backend := b.open(cfg)
	b.card.Inject(vpiv.Fault{INS: 0x20, After: 1, Effect: vpiv.Pull{Executed: true}})
	spec := holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256}
	_, err := backend.Generate(t.Context(), spec)
	want(t, err, holdfast.ErrUnavailable)
	b.reinsert()
	_, err = backend.Generate(t.Context(), spec)
	want(t, err, holdfast.ErrLocked)
	if left := b.card.PINTries(); left != 2 {
		t.Errorf("the card has %d tries left, want 2", left)
	}
}

// TestRawAttestation compares what is read past piv-go, for certificates that crypto/x509 does not parse, with what
// piv-go returns for one that it does.
func TestRawAttestation(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.Place = "9a" })
	slot, ca, err := token.RawAttestation(t.Context(), backend, "9a")
	if err != nil {
		t.Fatal(err)
	}
	b.mustSign(k) // on the connection that was opened again
	b.byAnother(backend, func(yk *piv.YubiKey) error {
		want, err := yk.AttestationCertificate()
		if err != nil {
			return err
		}
		got, err := x509.ParseCertificate(slot)
		if err != nil {
			return err
		}
		if !bytes.Equal(ca, want.Raw) || got.CheckSignatureFrom(want) != nil {
			t.Error("other certificates than piv-go returns")
		}
		return nil
	})
}
