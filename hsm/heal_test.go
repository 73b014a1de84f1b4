//go:build cgo && !nopkcs11

package hsm

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// generate makes a key or fails the test.
func generate(t testing.TB, b *Backend, a holdfast.Algorithm, r holdfast.Residence) holdfast.Key {
	t.Helper()
	k, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "test " + string(a), Algorithm: a, Residence: r})
	if err != nil {
		t.Fatalf("generate %s %s: %v", r, a, err)
	}
	return k
}

// signs checks that a key makes a signature that verifies.
func signs(t testing.TB, k holdfast.Key) {
	t.Helper()
	digest := k.Algorithm().Digest([]byte("test"))
	signature, err := k.Sign(t.Context(), digest, nil)
	if err == nil {
		err = holdfast.Verify(k.Algorithm(), k.Public(), digest, signature)
	}
	if err != nil {
		t.Fatalf("sign with %s: %v", k.Ref(), err)
	}
}

// signCode checks that signing fails with a code.
func signCode(t testing.TB, k holdfast.Key, want holdfast.Code) {
	t.Helper()
	_, err := k.Sign(t.Context(), k.Algorithm().Digest([]byte("test")), nil)
	if !errors.Is(err, want) {
		t.Fatalf("sign with %s: got error %v, want code %q", k.Ref(), err, want)
	}
}

func TestHealsAfterTokenWasAway(t *testing.T) {
	b, token := softHSM(t)
	resident := generate(t, b, holdfast.ES256, holdfast.Resident)
	edwards := generate(t, b, holdfast.EdDSA, holdfast.Resident)
	wrapped := generate(t, b, holdfast.ES256K, holdfast.Wrapped)
	signs(t, wrapped)
	away := token.Tokens() + ".away"
	for range 2 {
		if err := os.Rename(token.Tokens(), away); err != nil {
			t.Fatal(err)
		}
		signCode(t, resident, holdfast.ErrUnavailable)
		signCode(t, edwards, holdfast.ErrUnavailable)
		if err := b.Probe(t.Context()); !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("probe without a token: %v", err)
		}
		if _, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "away", Algorithm: holdfast.ES256}); !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("generate without a token: %v", err)
		}
		if err := os.Rename(away, token.Tokens()); err != nil {
			t.Fatal(err)
		}
		signs(t, resident)
		signs(t, edwards)
		signs(t, wrapped)
	}
	if err := b.Probe(t.Context()); err != nil {
		t.Errorf("probe: %v", err)
	}
	for k, err := range b.Keys(t.Context()) {
		if err != nil || k.Ref() != resident.Ref() && k.Ref() != edwards.Ref() {
			t.Errorf("after healing the token has %v, %v", k, err)
		}
	}
}

// TestTokenMovedDuringSigning takes the token away while callers sign: every signature either verifies or fails with
// ErrUnavailable, and all callers go on after the token came back.
func TestTokenMovedDuringSigning(t *testing.T) {
	b, token := softHSM(t)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	back := make(chan struct{})
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for range 8 {
		started.Add(1)
		wg.Go(func() {
			signs(t, k)
			started.Done()
			digest := testDigest(holdfast.ES256)
			for done := false; !done; {
				select {
				case <-back:
					done = true
				default:
				}
				signature, err := k.Sign(t.Context(), digest, nil)
				if err == nil {
					err = holdfast.Verify(holdfast.ES256, k.Public(), digest, signature)
				}
				if err != nil && (done || !errors.Is(err, holdfast.ErrUnavailable)) {
					t.Errorf("sign (token back: %t): %v", done, err)
				}
			}
		})
	}
	started.Wait()
	away := token.Tokens() + ".away"
	if err := os.Rename(token.Tokens(), away); err != nil {
		t.Fatal(err)
	}
	signCode(t, k, holdfast.ErrUnavailable)
	if err := os.Rename(away, token.Tokens()); err != nil {
		t.Fatal(err)
	}
	close(back)
	wg.Wait()
	signs(t, k)
}

// other returns the module as another part of the process sees it.
func other(t testing.TB, b *Backend) (*pkcs11.Ctx, uint) {
	t.Helper()
	p11 := pkcs11.New(b.cfg.Module)
	if p11 == nil {
		t.Fatal("the module cannot be loaded twice")
	}
	return p11, b.current.Load().slot
}

func TestHealsAfterWhatOthersDid(t *testing.T) {
	b, _ := softHSM(t)
	resident := generate(t, b, holdfast.ES256, holdfast.Resident)
	wrapped := generate(t, b, holdfast.ES384, holdfast.Wrapped)
	signs(t, wrapped)
	for name, harm := range map[string]func(p11 *pkcs11.Ctx, slot uint) error{
		"all sessions closed": func(p11 *pkcs11.Ctx, slot uint) error { return p11.CloseAllSessions(slot) },
		"user logged out": func(p11 *pkcs11.Ctx, slot uint) error {
			s, err := p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
			if err != nil {
				return err
			}
			return p11.Logout(s)
		},
		"module finalized": func(p11 *pkcs11.Ctx, _ uint) error { return p11.Finalize() },
	} {
		t.Run(name, func(t *testing.T) {
			for _, use := range []func(){
				func() { signs(t, resident) },
				func() { signs(t, wrapped) },
				func() { generate(t, b, holdfast.ES256, holdfast.Resident) },
				func() { generate(t, b, holdfast.ES256, holdfast.Wrapped) },
			} {
				p11, slot := other(t, b)
				if err := harm(p11, slot); err != nil {
					t.Fatal(err)
				}
				use()
			}
		})
	}
}

func TestKeyDestroyedByAnotherProgram(t *testing.T) {
	b, _ := softHSM(t)
	k := generate(t, b, holdfast.ES256, holdfast.Resident).(*residentKey)
	other := generate(t, b, holdfast.ES256, holdfast.Resident)
	before := b.current.Load()
	err := b.run(t.Context(), func(s *session) error { return s.destroy(k.bound.Load().handle) })
	if err != nil {
		t.Fatal(err)
	}
	signCode(t, k, holdfast.ErrNotFound)
	signs(t, other)
	if b.current.Load() != before {
		t.Error("a destroyed key ended the whole connection")
	}
	if err := b.Destroy(t.Context(), k.Ref()); err != nil {
		t.Errorf("destroying what is left of the key: %v", err)
	}
	if err := b.Destroy(t.Context(), k.Ref()); !errors.Is(err, holdfast.ErrNotFound) {
		t.Errorf("destroying it again: %v", err)
	}
}

// TestTwoTokensOfOneModule opens two tokens of one SoftHSM2 and has one of them go away: the other goes on.
func TestTwoTokensOfOneModule(t *testing.T) {
	dir := t.TempDir()
	modules := NewModules()
	var backends []*Backend
	var keys []holdfast.Key
	for _, label := range []string{"first", "second"} {
		token, err := softhsmtest.NewToken(dir, label)
		if err != nil {
			t.Fatal(err)
		}
		_ = token
	}
	for _, label := range []string{"first", "second"} {
		module, err := softhsmtest.SoftHSMModule()
		if err != nil {
			t.Fatal(err)
		}
		cfg := configOf(&softhsmtest.Token{Module: module, Label: label, PIN: "1234", Conf: dir + "/softhsm2.conf"})
		cfg.Modules = modules
		b := openConfig(t, cfg)
		backends = append(backends, b)
		keys = append(keys, generate(t, b, holdfast.ES256, holdfast.Resident))
	}
	if _, err := backends[1].Key(t.Context(), keys[0].Ref()); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a key of the first token on the second: %v", err)
	}
	// One backend initializes the module anew, which ends the sessions of the other.
	if err := backends[0].mod.reinitialize(t.Context(), backends[0].mod.now(), backends[0].cfg.CallTimeout); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, k := range keys {
			signs(t, k)
		}
	}
	if err := backends[0].Close(); err != nil {
		t.Fatal(err)
	}
	signCode(t, keys[0], holdfast.ErrUnavailable)
	signs(t, keys[1])
	cfg := backends[1].cfg
	cfg.Environment = map[string]string{"SOFTHSM2_CONF": "/nonexistent"}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("the module in another environment: %v", err)
	}
}
