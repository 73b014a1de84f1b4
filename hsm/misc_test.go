//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// evidence attests a key and returns the parsed statement after checking its signature.
func evidence(t *testing.T, k holdfast.Key, challenge []byte) map[string]any {
	t.Helper()
	e, err := k.(holdfast.Attester).Attest(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(e.Files))
	if e.Kind != "pkcs11-attributes" || !slices.Equal(names, []string{"attestor.der", "attributes.json", "attributes.sig"}) {
		t.Fatalf("evidence of kind %s with files %v", e.Kind, names)
	}
	pub, err := x509.ParsePKIXPublicKey(e.Files["attestor.der"])
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(e.Files["attributes.json"])
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest[:], e.Files["attributes.sig"]) {
		t.Error("the signature over the attributes does not verify")
	}
	var st map[string]any
	if err := json.Unmarshal(e.Files["attributes.json"], &st); err != nil {
		t.Fatal(err)
	}
	again, err := statement(st).encode()
	if err != nil || string(again) != string(e.Files["attributes.json"]) {
		t.Errorf("the attributes are not in canonical form: %s, %v", again, err)
	}
	if st["challenge"] != hex.EncodeToString(challenge) {
		t.Errorf("the challenge is %v", st["challenge"])
	}
	spki, err := encodeSPKI(k.Public())
	if err != nil || st["public_key"] != base64.StdEncoding.EncodeToString(spki) {
		t.Errorf("the public key is %v, %v", st["public_key"], err)
	}
	return st
}

func TestEvidence(t *testing.T) {
	b, token := softHSM(t)
	challenge := sha256.Sum256([]byte("challenge"))
	st := evidence(t, generate(t, b, holdfast.ES256K, holdfast.Resident), challenge[:])
	for name, want := range map[string]any{
		"algorithm": "ES256K", "residence": "resident", "token_serial": token.Serial, "distrust": "",
		"CKA_CLASS": "0x3", "CKA_KEY_TYPE": "0x3", "CKA_KEY_GEN_MECHANISM": "0x1040",
		"CKA_LOCAL": true, "CKA_SENSITIVE": true, "CKA_EXTRACTABLE": false, "CKA_ALWAYS_SENSITIVE": true,
		"CKA_NEVER_EXTRACTABLE": true, "CKA_PRIVATE": true, "CKA_TOKEN": true, "CKA_SIGN": true, "CKA_DERIVE": false,
		"CKA_ALWAYS_AUTHENTICATE": false, "self_test_01_escaped": false,
	} {
		if st[name] != want {
			t.Errorf("%s is %v, want %v", name, st[name], want)
		}
	}
	wrapped := generate(t, b, holdfast.ES256, holdfast.Wrapped)
	st = evidence(t, wrapped, challenge[:])
	for name, want := range map[string]any{
		"residence": "wrapped", "wrapped_here": true, "unwrap_template_honoured": true, "kek_CKA_NEVER_EXTRACTABLE": true,
		"kek_CKA_TRUSTED": false, "kek_CKA_DECRYPT": false, "kek_CKA_MODIFIABLE": false, "CKA_EXTRACTABLE": false,
		"wrap_mechanism": "CKM_AES_KEY_WRAP_PAD", "unwrap_test_01_escaped": false,
	} {
		if st[name] != want {
			t.Errorf("%s is %v, want %v", name, st[name], want)
		}
	}
	// The same attestation key signs after a restart.
	first := b.attests.public
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openConfig(t, configOf(token))
	k, err := b.Load(t.Context(), wrappedBlob(t, wrapped))
	if err != nil {
		t.Fatal(err)
	}
	evidence(t, k, challenge[:])
	if !samePublic(b.attests.public, first) {
		t.Error("another attestation key signs after a restart")
	}
}

func TestSessionCopies(t *testing.T) {
	token := softhsmtest.TokenFor(t, "copies")
	cfg := configOf(token)
	cfg.SessionCopies = true
	b := openConfig(t, cfg)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	signs(t, k)
	copies := func() (n int) {
		onToken(t, b, func(s *session) error {
			found, err := s.find(attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY))
			n = len(found)
			return err
		})
		return n
	}
	if n := copies(); n != 1 {
		t.Errorf("%d copies in the session, want 1", n)
	}
	p11, slot := other(t, b)
	if err := p11.CloseAllSessions(slot); err != nil {
		t.Fatal(err)
	}
	signs(t, k)
	if err := b.Destroy(t.Context(), k.Ref()); err != nil {
		t.Fatal(err)
	}
	signCode(t, k, holdfast.ErrNotFound)
	if n := copies(); n != 0 {
		t.Errorf("%d copies outlive the key", n)
	}
}

// TestWaitingForASession has callers wait for the one session there is.
func TestWaitingForASession(t *testing.T) {
	token := softhsmtest.TokenFor(t, "one session")
	cfg := configOf(token)
	cfg.MaxSessions = 1
	b := openConfig(t, cfg)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	begun, finish := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		onToken(t, b, func(*session) error {
			close(begun)
			<-finish
			return nil
		})
	})
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if _, err := k.Sign(ctx, testDigest(holdfast.ES256), nil); err != context.Canceled {
			t.Errorf("a caller that left while it waited: %v", err)
		}
		close(finish)
	})
	wg.Go(func() { signs(t, k) }) // waits until the session is free
	cancel()
	wg.Wait()
}

// TestTooFewSessions asks for more sessions than the module has.
func TestTooFewSessions(t *testing.T) {
	if n := (Config{MaxSessions: 9}).sessions(5); n != 5 {
		t.Errorf("%d sessions on a token that has 5", n)
	}
	if n := (Config{}).sessions(0); n < minSessions || n > maxSessions {
		t.Errorf("%d sessions by default", n)
	}
}

func TestCloseWhileSigning(t *testing.T) {
	b, _ := softHSM(t)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	var wg, started sync.WaitGroup
	for range 8 {
		started.Add(1)
		wg.Go(func() {
			signs(t, k)
			started.Done()
			for {
				_, err := k.Sign(t.Context(), testDigest(holdfast.ES256), nil)
				if errors.Is(err, holdfast.ErrUnavailable) {
					return
				}
				if err != nil {
					t.Errorf("sign while the backend closes: %v", err)
					return
				}
			}
		})
	}
	started.Wait()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for _, err := range b.Keys(t.Context()) {
		if !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("keys of a closed backend: %v", err)
		}
	}
	if err := b.Unlock(t.Context(), holdfast.NewSecret([]byte("1234"))); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("unlock of a closed backend: %v", err)
	}
}

// TestErrorsNameTheReturnValue checks that what the module said is kept for people.
func TestErrorsNameTheReturnValue(t *testing.T) {
	err := failure("sign", "pkcs11:object=a", errors.Join(pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)))
	if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), "CKR_DEVICE_REMOVED") {
		t.Errorf("%v", err)
	}
	if err := failure("sign", "", context.Canceled); err != context.Canceled {
		t.Errorf("an ended context became %v", err)
	}
	if err := failure("sign", "", pkcs11.Error(0x80000001)); !errors.Is(err, holdfast.ErrInternal) {
		t.Errorf("a return value of the vendor's own: %v", err)
	}
}
