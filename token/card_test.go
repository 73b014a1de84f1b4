//go:build cgo && !nopiv

package token_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
	"holdfast/token/attestation"
)

func TestSwappedCard(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	b.remove()
	other := newCard(t, vpiv.Config{Serial: 7})
	b.insert(other)
	want(t, b.sign(k), holdfast.ErrUnavailable, "another card (serial 7)", fmt.Sprint(serial))
	_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
	want(t, err, holdfast.ErrUnavailable, "another card")
	cfg := b.config()
	cfg.Serial = serial
	_, err = token.Open(t.Context(), cfg)
	want(t, err, holdfast.ErrUnavailable, "another card")
	second := b.open(token.Config{PIN: fixedPIN(pin), RotateManagementKey: token.RotateNever})
	_, err = second.Key(t.Context(), k.Ref())
	want(t, err, holdfast.ErrInvalid, "another card")
	want(t, second.Destroy(t.Context(), k.Ref()), holdfast.ErrInvalid, "another card")
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	b.remove()
	b.insert(b.card)
	b.mustSign(k)
}

func TestTwoCards(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	if err := b.reader.Insert(t.Context(), 1, newCard(t, vpiv.Config{Serial: 7})); err != nil {
		t.Fatal(err)
	}
	_, err := token.Open(t.Context(), b.config())
	want(t, err, holdfast.ErrInvalid, "more than one card", "7")
	for _, n := range []uint32{serial, 7} {
		cfg := b.config()
		cfg.Serial = n
		if got := b.open(cfg).Capabilities().Device.Serial; got != fmt.Sprint(n) {
			t.Errorf("opened card %s instead of %d", got, n)
		}
	}
	cfg := b.config()
	cfg.Reader = b.reader.Name(1)
	if got := b.open(cfg).Capabilities().Device.Serial; got != "7" {
		t.Errorf("in the second slot there is card %s", got)
	}
}

// TestOldCards makes, uses, attests, finds and destroys a key on cards of older versions.
func TestOldCards(t *testing.T) {
	for _, version := range [][3]byte{{4, 2, 8}, {4, 3, 7}, {5, 2, 4}, {5, 4, 3}} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := newBench(t, vpiv.Config{Version: version})
			backend := b.open(b.config())
			for _, a := range []holdfast.Algorithm{holdfast.EdDSA, holdfast.ECDHX25519, holdfast.RS256_4096} {
				if backend.Capabilities().Supports(a, holdfast.Resident) {
					t.Errorf("the card offers %s", a)
				}
			}
			attests := version[1] >= 3 || version[0] > 4
			if !attests {
				_, _, err := backend.Plan(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
				want(t, err, holdfast.ErrInvalid, "name one")
			}
			for _, a := range []holdfast.Algorithm{holdfast.ES384, holdfast.PS256_2048, holdfast.ECDHP256} {
				b.lifeOnOldCard(backend, a, attests)
			}
			health, err := backend.Health(t.Context())
			if err != nil || health.DefaultManagementKey != token.No || health.Attests != attests || len(health.Free) != 24 {
				t.Errorf("health %+v, %v", health, err)
			}
		})
	}
}

func (b *bench) lifeOnOldCard(backend *token.Backend, a holdfast.Algorithm, attests bool) {
	t := b.t
	t.Helper()
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.Algorithm, s.Place = a, "9c" })
	found, err := backend.Key(t.Context(), k.Ref())
	if err != nil {
		t.Fatal(err)
	}
	if a.Use() == holdfast.UseSign {
		b.mustSign(found)
	}
	challenge := sha256.Sum256([]byte(k.Ref()))
	evidence, err := found.(holdfast.Attester).Attest(t.Context(), challenge[:])
	if attests && err != nil {
		t.Errorf("attest: %v", err)
	} else if !attests {
		want(t, err, holdfast.ErrUnsupported)
	} else if _, err := attestation.VerifyEvidence(evidence.Files, challenge[:], a, k.Public(), b.roots()); err != nil {
		t.Error(err)
	}
	_, err = backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: a, Place: "9c"})
	want(t, err, holdfast.ErrExists)
	if err := backend.Destroy(t.Context(), k.Ref()); err != nil {
		t.Fatal(err)
	}
	want(t, backend.Destroy(t.Context(), k.Ref()), holdfast.ErrNotFound)
}

func (b *bench) roots() *x509.CertPool {
	b.t.Helper()
	root, err := b.card.AttestationRoot()
	if err != nil {
		b.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return pool
}

func TestAttestation(t *testing.T) {
	b := newBench(t, vpiv.Config{FormFactor: 3})
	backend := b.open(b.config())
	k := b.generate(backend, func(s *holdfast.KeySpec) {
		s.Place, s.PIN, s.Touch = "9A", holdfast.PINAlways, holdfast.TouchCached
	})
	challenge := sha256.Sum256([]byte("fresh"))
	evidence, err := k.(holdfast.Attester).Attest(t.Context(), challenge[:])
	if err != nil {
		t.Fatal(err)
	}
	got, err := attestation.VerifyEvidence(evidence.Files, challenge[:], k.Algorithm(), k.Public(), b.roots())
	if err != nil {
		t.Fatal(err)
	}
	if want := (attestation.Report{
		Serial: serial, Version: "5.7.1", Slot: "9a", FormFactor: 3, PIN: holdfast.PINAlways, Touch: holdfast.TouchCached,
		Anchored: true, Fresh: true,
	}); got != want || evidence.Kind != attestation.Kind {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestForeignKeys checks that keys of other programs are found, used and never overwritten.
func TestForeignKeys(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	imported, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	policy := piv.Key{Algorithm: piv.AlgorithmEC384, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever}
	b.byAnother(backend, func(yk *piv.YubiKey) error {
		_, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotAuthentication, policy)
		return errors.Join(err, yk.SetPrivateKeyInsecure(piv.DefaultManagementKey, piv.SlotSignature, imported, policy))
	})
	backend = b.open(b.config())
	generated, err := backend.Key(t.Context(), "piv:slot=9a")
	if err != nil {
		t.Fatal(err)
	}
	if generated.Algorithm() != holdfast.ES384 {
		t.Errorf("adopted as %s", generated.Algorithm())
	}
	b.mustSign(generated)
	adopted, err := backend.Key(t.Context(), "piv:slot=9c")
	if err != nil {
		t.Fatal(err)
	}
	b.mustSign(adopted)
	challenge := sha256.Sum256(nil)
	_, err = adopted.(holdfast.Attester).Attest(t.Context(), challenge[:])
	want(t, err, holdfast.ErrUnsupported, "imported")
	if again, err := backend.Key(t.Context(), adopted.Ref()); err != nil || again.Ref() != adopted.Ref() {
		t.Errorf("by its own ref: %v", err)
	}
	_, err = backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256, Place: "9a"})
	want(t, err, holdfast.ErrExists, "9a")
	stranger := holdfast.Ref(fmt.Sprintf("piv:serial=%d;slot=9a;id=%032x", serial, 1))
	want(t, backend.Destroy(t.Context(), stranger), holdfast.ErrIntegrity)
	b.mustSign(generated)
	if refs, problems := b.list(backend); len(refs) != 2 || len(problems) != 0 {
		t.Errorf("listed %v, %v", refs, problems)
	}
	if err := backend.Destroy(t.Context(), generated.Ref()); err != nil {
		t.Error(err)
	}
	want(t, b.sign(generated), holdfast.ErrNotFound)
}

// TestReplacedKey checks that a key which another program overwrote is noticed and not destroyed.
func TestReplacedKey(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.RotateManagementKey = token.RotateNever
	backend := b.open(cfg)
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.Place = "9c" })
	b.byAnother(backend, func(yk *piv.YubiKey) error {
		_, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotSignature,
			piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever})
		return err
	})
	backend = b.open(cfg)
	_, err := backend.Key(t.Context(), k.Ref())
	want(t, err, holdfast.ErrIntegrity, "another key")
	want(t, backend.Destroy(t.Context(), k.Ref()), holdfast.ErrIntegrity)
	_, problems := b.list(backend)
	if len(problems) != 1 || !errors.Is(problems[0], holdfast.ErrIntegrity) {
		t.Errorf("listed as %v", problems)
	}
}

// TestKeyReplacedWhileKnown checks a key that was found before another program overwrote it.
func TestKeyReplacedWhileKnown(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.RotateManagementKey, cfg.Idle = token.RotateNever, time.Millisecond
	backend := b.open(cfg)
	k := b.generate(backend, func(s *holdfast.KeySpec) { s.Place = "9c" })
	yk := b.otherWhenFree()
	_, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotSignature,
		piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever})
	if err := errors.Join(err, yk.Close()); err != nil {
		t.Fatal(err)
	}
	want(t, b.sign(k), holdfast.ErrIntegrity, "another key")
	challenge := sha256.Sum256(nil)
	_, err = k.(holdfast.Attester).Attest(t.Context(), challenge[:])
	want(t, err, holdfast.ErrIntegrity)
}

// TestResetCard checks a card that another program reset to its factory state.
func TestResetCard(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.Idle = time.Millisecond
	backend := b.open(cfg)
	k := b.generate(backend, nil)
	yk := b.otherWhenFree()
	if err := errors.Join(yk.Reset(), yk.SetPIN(piv.DefaultPIN, pin), yk.Close()); err != nil {
		t.Fatal(err)
	}
	want(t, b.sign(k), holdfast.ErrNotFound)
	_, err := backend.Key(t.Context(), k.Ref())
	want(t, err, holdfast.ErrNotFound)
	b.mustSign(b.generate(backend, nil)) // with the factory management key, which is rotated once more
}

func TestFullCard(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	places := map[string]bool{}
	for range 24 {
		spec, _, err := backend.Plan(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := backend.Generate(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		places[spec.Place] = true
	}
	if len(places) != 24 {
		t.Errorf("24 keys in %d slots", len(places))
	}
	_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
	want(t, err, holdfast.ErrBusy, "full")
	health, err := backend.Health(t.Context())
	if err != nil || len(health.Free) != 0 || len(health.Notes) == 0 {
		t.Errorf("health %+v, %v", health, err)
	}
}

// TestPlans checks that two plans get two slots, and that a plan which was never used blocks nothing.
func TestPlans(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	spec := holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256}
	first, _, err := backend.Plan(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	second, ref, err := backend.Plan(t.Context(), spec)
	if err != nil || second.Place == first.Place || bytes.Equal(first.ID, second.ID) {
		t.Fatalf("planned %s and %s: %v", first.Place, second.Place, err)
	}
	for range 30 {
		if _, _, err := backend.Plan(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	if k, err := backend.Generate(t.Context(), second); err != nil || k.Ref() != ref {
		t.Errorf("planned %s: %v", ref, err)
	}
}

func TestTouch(t *testing.T) {
	b := newBench(t, vpiv.Config{TouchRefused: true})
	backend := b.open(b.config())
	spec := holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256, Touch: holdfast.TouchAlways}
	_, err := backend.Generate(t.Context(), spec)
	want(t, err, holdfast.ErrUnavailable, "touch")
	if refs, problems := b.list(backend); len(refs)+len(problems) > 0 {
		t.Errorf("left behind: %v, %v", refs, problems)
	}
	b.card.SetTouch(true)
	k, err := backend.Generate(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	b.mustSign(k)
	b.card.SetTouch(false)
	want(t, b.sign(k), holdfast.ErrUnavailable, "touch")
}

func TestOpenErrors(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	for name, c := range map[string]struct {
		edit func(*token.Config)
		want holdfast.Code
	}{
		"no such reader":    {func(c *token.Config) { c.Reader = "Acme" }, holdfast.ErrUnavailable},
		"nowhere to rotate": {func(c *token.Config) { c.Secrets = nil }, holdfast.ErrInvalid},
		"unknown setting":   {func(c *token.Config) { c.ManagementKey = 9 }, holdfast.ErrInvalid},
		"negative idle":     {func(c *token.Config) { c.Idle = -1 }, holdfast.ErrInvalid},
		"other daemon": {func(c *token.Config) {
			c.Environment = map[string]string{"PCSCLITE_CSOCK_NAME": "/x"}
		}, holdfast.ErrInvalid},
	} {
		cfg := b.config()
		b.open(cfg)
		c.edit(&cfg)
		_, err := token.Open(t.Context(), cfg)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := token.Open(ended, b.config()); !errors.Is(err, context.Canceled) {
		t.Errorf("under an ended context: %v", err)
	}
}

// TestNoDaemon checks what is said where no PC/SC daemon runs, and that it heals when one does.
func TestNoDaemon(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, nil)
	hidden := filepath.Join(t.TempDir(), "link")
	if err := os.Rename(socketName(), hidden); err != nil {
		t.Fatal(err)
	}
	_, err := token.Open(t.Context(), b.config())
	want(t, err, holdfast.ErrUnavailable, "pcscd")
	if err := os.Rename(hidden, socketName()); err != nil {
		t.Fatal(err)
	}
	b.mustSign(k)
}
