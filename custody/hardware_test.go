//go:build cgo && !nopkcs11 && !nopiv

package custody

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"holdfast"
	"holdfast/custody/evidence"
	"holdfast/custody/store"
	"holdfast/hsm"
	"holdfast/internal/pubkey"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
	"holdfast/tpm"
)

const cardPIN = "246810"

// secretOf returns a PIN source.
func secretOf(pin string) func(context.Context) (holdfast.Secret, error) {
	return func(context.Context) (holdfast.Secret, error) { return holdfast.NewSecret([]byte(pin)), nil }
}

// opened keeps a nil *T from becoming a Backend that is not nil.
func opened[T holdfast.Backend](b T, err error) (holdfast.Backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

func hsmConfig(t *softhsmtest.Token, s *store.Store) BackendConfig {
	cfg := hsm.Config{
		Module: t.Module, TokenLabel: t.Label, Serial: t.Serial, PIN: secretOf(t.PIN), PINMemory: s, Environment: t.Environment(),
		CallTimeout: time.Minute,
	}
	return BackendConfig{Name: "hsm", Kind: "pkcs11", VerifyAfterSign: true, PIN: cfg.PIN,
		Open: func(ctx context.Context) (holdfast.Backend, error) { return opened(hsm.Open(ctx, cfg)) }}
}

// bench is a service on a SoftHSM2 token, a TPM and a PIV card, and what somebody who does not trust it knows.
type bench struct {
	*fixture
	roots *x509.CertPool // of the TPM's and of the card's maker
}

func newBench(t *testing.T) *bench {
	t.Helper()
	hsmToken := softhsmtest.TokenFor(t, "custody")
	chip := softhsmtest.TPMFor(t)
	reader := softhsmtest.ReaderFor(t)
	card, err := vpiv.NewCard(vpiv.Config{Serial: 13370000, PIN: cardPIN, PUK: "97531864"})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Insert(t.Context(), 0, card); err != nil {
		t.Fatal(err)
	}
	root, err := card.AttestationRoot()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{fixture: &fixture{dir: t.TempDir()}, roots: x509.NewCertPool()}
	b.roots.AddCert(root)
	if !b.roots.AppendCertsFromPEM(chip.CARoot) {
		t.Fatal("the TPM's maker has no certificate")
	}
	b.adjust = func(c *Config) {
		c.Backends = []BackendConfig{
			hsmConfig(hsmToken, b.store),
			{Name: "tpm", Kind: "tpm2", VerifyAfterSign: true, Open: func(ctx context.Context) (holdfast.Backend, error) {
				return opened(tpm.Open(ctx, tpm.Config{Device: "unix:" + chip.SocketPath}))
			}},
			{Name: "piv", Kind: token.Kind, VerifyAfterSign: true, PIN: secretOf(cardPIN), Open: func(ctx context.Context) (holdfast.Backend, error) {
				return opened(token.Open(ctx,
					token.Config{PIN: secretOf(cardPIN), PINMemory: b.store, Secrets: b.store}))
			}},
		}
	}
	b.start(t)
	t.Cleanup(func() { b.stop(t) })
	for _, st := range b.service.Backends(t.Context()) {
		if !st.Available {
			t.Fatalf("%s: %v", st.Name, st.Reason)
		}
	}
	return b
}

// subject is a kind of key that evidence is made of.
type subject struct {
	backend   string
	algorithm holdfast.Algorithm
	residence holdfast.Residence
}

var subjects = []subject{
	{"hsm", holdfast.ES256, holdfast.Resident}, {"hsm", holdfast.ES256, holdfast.Wrapped},
	{"hsm", holdfast.EdDSA, holdfast.Resident},
	{"hsm", holdfast.ECDHX25519, holdfast.Resident}, {"hsm", holdfast.A256GCM, holdfast.Resident},
	{"tpm", holdfast.ES256, holdfast.Resident}, {"tpm", holdfast.ES256, holdfast.Wrapped},
	{"tpm", holdfast.ECDHP256, holdfast.Wrapped},
	{"piv", holdfast.ES256, holdfast.Resident}, {"piv", holdfast.ECDHP384, holdfast.Resident},
}

func (s subject) name() string {
	return s.backend + " " + string(s.algorithm) + " " + s.residence.String()
}

// TestDevices makes keys in all three devices, proves where they are, and goes on after a restart.
func TestDevices(t *testing.T) {
	b := newBench(t)
	var keys []Key
	for _, s := range subjects {
		r := request(s.name(), s.algorithm, s.residence)
		r.Backend = s.backend
		k, err := b.service.CreateKey(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", s.name(), err)
		}
		keys = append(keys, k)
	}
	b.restart(t)
	for _, k := range keys {
		t.Run(k.Name, func(t *testing.T) {
			if k.Algorithm.Use() == holdfast.UseSign {
				digest := k.Algorithm.Digest([]byte("message"))
				signature, err := b.service.Sign(t.Context(), k.Name, digest)
				if err := errors.Join(err, holdfast.Verify(k.Algorithm, k.Public, digest, signature)); err != nil {
					t.Error(err)
				}
			}
			b.checkEvidence(t, k)
		})
	}
	t.Run("activation", func(t *testing.T) { b.checkActivation(t, "tpm ES256 wrapped", "hsm ES256 resident") })
	for _, name := range []string{"hsm", "tpm", "piv"} {
		i, err := b.service.InspectBackend(t.Context(), name)
		if err != nil || len(i.Missing)+len(i.Changed)+len(i.Undead)+len(i.Pending)+len(i.Unusable) != 0 {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	for _, k := range keys {
		if err := b.service.DestroyKey(t.Context(), k.Name); err != nil {
			t.Errorf("destroy %s: %v", k.Name, err)
		}
	}
}

// checkEvidence makes a bundle, verifies it, and sees it refused with any bit changed.
func (b *bench) checkEvidence(t *testing.T, k Key) {
	t.Helper()
	nonce := []byte("chosen by a stranger")
	files, err := b.service.Attest(t.Context(), k.Name, nonce)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := evidence.Verify(files, nil)
	if err != nil || plain.Anchored || len(plain.Warnings) == 0 {
		t.Fatalf("without anything known: %+v, %v", plain, err)
	}
	o := &evidence.Options{Roots: b.roots, ExpectPublic: k.Public, Nonce: nonce}
	if k.Backend == "piv" && k.Algorithm == holdfast.ECDHX25519 {
		_, err := evidence.Verify(files, o)
		wantCode(t, "a nonce that an X25519 key on a card cannot sign", err, holdfast.ErrUnsupported)
		o.Nonce = nil
	}
	if plain.Attestor != nil {
		spki, err := pubkey.MarshalSPKI(plain.Attestor)
		if err != nil {
			t.Fatal(err)
		}
		o.TrustedAttestors = [][]byte{spki}
	}
	r, err := evidence.Verify(files, o)
	if err != nil || !r.Anchored || r.Name != k.Name || r.Algorithm != k.Algorithm || r.Purpose != string(k.Purpose) {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, line := range slices.Concat(r.Lines, r.Warnings) {
		t.Log(line)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for at := range files[name] {
			changed := maps.Clone(files)
			changed[name] = slices.Clone(files[name])
			changed[name][at] ^= 1 << (at % 8)
			_, err := evidence.Verify(changed, nil)
			wantCode(t, name+" with a bit changed", err, holdfast.ErrIntegrity)
			if at%5 != 0 || name == evidence.FileSums {
				continue
			}
			// Somebody who changes the evidence makes new sums too; then it is what the device signed that does not fit.
			changed[evidence.FileSums] = sumsOf(changed)
			if _, err := evidence.Verify(changed, o); err == nil {
				t.Errorf("%s with bit %d of byte %d changed, and new sums: accepted", name, at%8, at)
			}
		}
	}
}

// checkActivation asks the TPM the question that its evidence leaves open, and believes its attestation key from then on.
func (b *bench) checkActivation(t *testing.T, name, elsewhere string) {
	t.Helper()
	files, err := b.service.Attest(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := evidence.Verify(files, &evidence.Options{Roots: b.roots}); err != nil || r.Anchored {
		t.Fatalf("a certificate that anybody can copy anchors the evidence: %v, %v", r.Anchored, err)
	}
	credential, keep, err := evidence.NewCredential(files)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.service.Activate(t.Context(), "tpm", credential)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := evidence.CheckAnswer(files, keep, answer.Bytes(), b.roots)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := pubkey.MarshalSPKI(ak)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := evidence.Verify(files,
		&evidence.Options{Roots: b.roots, TrustedAttestors: [][]byte{spki}}); err != nil || !r.Anchored {
		t.Errorf("anchored %v, %v", r.Anchored, err)
	}
	wrong := slices.Clone(answer.Bytes())
	wrong[0] ^= 1
	_, wrongErr := evidence.CheckAnswer(files, keep, wrong, b.roots)
	_, emptyErr := evidence.CheckAnswer(files, keep, nil, b.roots)
	_, otherErr := evidence.CheckAnswer(files, keep, answer.Bytes(), x509.NewCertPool())
	_, lostErr := evidence.CheckAnswer(files, keep[1:], answer.Bytes(), b.roots)
	_, backendErr := b.service.Activate(t.Context(), "hsm", credential)
	credential[len(credential)-1] ^= 1
	_, editedErr := b.service.Activate(t.Context(), "tpm", credential)
	wantCode(t, "a wrong answer", wrongErr, holdfast.ErrIntegrity)
	wantCode(t, "no answer", emptyErr, holdfast.ErrIntegrity)
	wantCode(t, "another maker", otherErr, holdfast.ErrIntegrity)
	wantCode(t, "half of what was kept", lostErr, holdfast.ErrInvalid)
	wantCode(t, "a backend that is no TPM", backendErr, holdfast.ErrUnsupported)
	wantCode(t, "an edited credential", editedErr, holdfast.ErrIntegrity)
	others, err := b.service.Attest(t.Context(), elsewhere, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = evidence.NewCredential(others)
	wantCode(t, "evidence of a token", err, holdfast.ErrUnsupported)
}

// sumsOf writes SHA256SUMS anew.
func sumsOf(files map[string][]byte) []byte {
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != evidence.FileSums {
			text = fmt.Appendf(text, "%x  %s\n", sha256.Sum256(files[name]), name)
		}
	}
	return text
}
