//go:build cgo && !nopkcs11

package hsm

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

func wrappedBlob(t testing.TB, k holdfast.Key) []byte {
	t.Helper()
	w, ok := holdfast.As[holdfast.WrappedKey](k)
	if !ok {
		t.Fatal("not a wrapped key")
	}
	return w.Blob()
}

// bodyOf parses a wrapped key's blob.
func bodyOf(t testing.TB, k *wrappedKey) blobBody {
	t.Helper()
	parsed, err := parseBlob(k.encoded)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Body
}

func TestWrappedKeysLeaveNothingOnTheToken(t *testing.T) {
	b, _ := softHSM(t)
	generate(t, b, holdfast.ES256, holdfast.Wrapped)
	count := func() (n int) {
		onToken(t, b, func(s *session) error {
			all, err := s.find()
			n = len(all)
			return err
		})
		return n
	}
	before := count()
	for range 5 {
		generate(t, b, holdfast.ES256, holdfast.Wrapped)
	}
	if after := count(); after != before || before != 2 {
		t.Errorf("%d objects before and %d after, want the two wrapping keys", before, after)
	}
}

// TestWrappedCache uses more keys than are kept unwrapped, from several callers.
func TestWrappedCache(t *testing.T) {
	token := softhsmtest.TokenFor(t, "cache")
	cfg := configOf(token)
	cfg.WrappedCache = 3
	b := openConfig(t, cfg)
	var keys []holdfast.Key
	for range 8 {
		keys = append(keys, generate(t, b, holdfast.ES256, holdfast.Wrapped))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 16 {
				k := keys[(i+j)%len(keys)]
				digest := testDigest(holdfast.ES256)
				signature, err := k.Sign(t.Context(), digest, nil)
				if err == nil {
					err = holdfast.Verify(holdfast.ES256, k.Public(), digest, signature)
				}
				if err != nil {
					t.Errorf("sign: %v", err)
				}
			}
		})
	}
	wg.Wait()
	onToken(t, b, func(s *session) error {
		objects, err := s.find(attr(pkcs11.CKA_TOKEN, false))
		if err == nil && len(objects) != 3 {
			t.Errorf("%d unwrapped keys are in the token, want 3", len(objects))
		}
		return err
	})
}

func TestBlobOfAnotherToken(t *testing.T) {
	b, _ := softHSM(t)
	mine := wrappedBlob(t, generate(t, b, holdfast.ES256, holdfast.Wrapped))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ = softHSM(t)
	if _, err := b.Load(t.Context(), mine); !errors.Is(err, holdfast.ErrInvalid) || !strings.Contains(err.Error(), "another token") {
		t.Errorf("a blob of another token: %v", err)
	}
	generate(t, b, holdfast.ES256, holdfast.Wrapped)
	if _, err := b.Load(t.Context(), mine); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a blob of another token: %v", err)
	}
}

// TestForgedBlob changes a blob as somebody would who can write the database and knows the format.
func TestForgedBlob(t *testing.T) {
	b, _ := softHSM(t)
	one := generate(t, b, holdfast.ECDHP256, holdfast.Wrapped).(*wrappedKey)
	two := generate(t, b, holdfast.ECDHP256, holdfast.Wrapped).(*wrappedKey)
	for name, forge := range map[string]func(*blobBody){
		"public key":   func(body *blobBody) { body.Public = bodyOf(t, two).Public },
		"wrapped key":  func(body *blobBody) { body.Wrapped = bodyOf(t, two).Wrapped },
		"identifier":   func(body *blobBody) { body.ID = bodyOf(t, two).ID },
		"mechanism":    func(body *blobBody) { body.Mechanism = pkcs11.CKM_AES_KEY_WRAP },
		"nothing else": func(*blobBody) {},
	} {
		body := bodyOf(t, one)
		forge(&body)
		der, err := encodeBody(body)
		if err != nil {
			t.Fatal(err)
		}
		mac := []byte(one.mac)
		if name == "nothing else" {
			mac = bytes.Repeat([]byte{1}, len(mac))
		}
		forged, err := encodeBlob(der, mac)
		if err != nil {
			t.Fatal(err)
		}
		k, err := b.Load(t.Context(), forged)
		if err != nil {
			t.Fatalf("%s: load finds damage, not forgery: %v", name, err)
		}
		agreement, err := k.(holdfast.Agreer).Agreement(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agreement.ECDH(agreement.PublicKey()); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("%s forged: %v", name, err)
		}
	}
}

// TestTrustedWrappingKey lets the security officer make the key-wrapping key.
func TestTrustedWrappingKey(t *testing.T) {
	token := softhsmtest.TokenFor(t, "trusted")
	cfg := configOf(token)
	cfg.SOPIN = pinOf(token.SOPIN)
	b := openConfig(t, cfg)
	resident := generate(t, b, holdfast.ES256, holdfast.Resident)
	k := generate(t, b, holdfast.ES256, holdfast.Wrapped)
	signs(t, resident)
	signs(t, k)
	onToken(t, b, func(s *session) error {
		keys, err := s.wrappingKeys()
		if err == nil && (len(keys) != 1 || !keys[0].trusted || !keys[0].locked) {
			t.Errorf("wrapping keys: %+v", keys)
		}
		return err
	})
	blob := wrappedBlob(t, k)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openConfig(t, cfg)
	again, err := b.Load(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, again)
}

func TestWrongSecurityOfficerPIN(t *testing.T) {
	token := softhsmtest.TokenFor(t, "officer")
	cfg := configOf(token)
	cfg.SOPIN, _ = countedPIN("00000000")
	source, asked := countedPIN("00000000")
	cfg.SOPIN = source
	b := openConfig(t, cfg)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	want := []holdfast.Code{holdfast.ErrAuth, holdfast.ErrLocked, holdfast.ErrLocked}
	for _, code := range want {
		_, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256, Residence: holdfast.Wrapped})
		if !errors.Is(err, code) {
			t.Errorf("wrapped key with a wrong SO PIN: got error %v, want code %q", err, code.Error())
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the wrong SO PIN was given %d times", n)
	}
	signs(t, k)
}

// TestPlantedWrappingKey puts a key-wrapping key on the token whose value is known, and one without CKA_UNWRAP_TEMPLATE:
// neither wraps new keys.
func TestPlantedWrappingKey(t *testing.T) {
	b, _ := softHSM(t)
	known, loose := strings.Repeat("\x00", idSize), strings.Repeat("\x01", idSize) // first in the order of identifiers
	onToken(t, b, func(s *session) error {
		for _, label := range []string{kekLabel, macLabel} {
			_, err := s.p11.CreateObject(s.handle, []*pkcs11.Attribute{
				attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attr(pkcs11.CKA_TOKEN, true),
				attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_ID, known), attr(pkcs11.CKA_VALUE, make([]byte, 32)),
				attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_SIGN, true),
			})
			if err != nil {
				return err
			}
		}
		return s.makeWrappingKey(&profile{}, []byte(loose), kekOptions{})
	})
	k := generate(t, b, holdfast.ES256, holdfast.Wrapped).(*wrappedKey)
	if id := string(bodyOf(t, k).KEK); id == known || id == loose {
		t.Errorf("a planted wrapping key was used: %x", id)
	}
	signs(t, k)
	onToken(t, b, func(s *session) error {
		if _, err := s.wrappingKey([]byte(known)); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("a wrapping key that was imported is accepted: %v", err)
		}
		return nil
	})
}

// TestWrappedKeyCannotBeExported tries on real blobs what the profile says was tried on sacrificial ones.
func TestWrappedKeyCannotBeExported(t *testing.T) {
	b, _ := softHSM(t)
	k := generate(t, b, holdfast.ES256, holdfast.Wrapped).(*wrappedKey)
	if !b.profile.Load().lockDown {
		t.Fatal("SoftHSM2 honours CKA_UNWRAP_TEMPLATE, but the backend did not find that out")
	}
	onToken(t, b, func(s *session) error {
		kek, err := s.wrappingKey(bodyOf(t, k).KEK)
		if err != nil {
			return err
		}
		for _, attempt := range s.loosen(s.c.profile, kek.kek, bodyOf(t, k).Wrapped) {
			if attempt.escaped {
				t.Errorf("%s exports a wrapped key", attempt.name)
			}
		}
		h, _, err := k.handle(s)
		if err != nil {
			return err
		}
		if _, err := s.wrap(s.c.profile.wrap, kek.kek, h); err == nil {
			t.Error("an unwrapped key can be wrapped again")
		}
		if values, err := s.readOnce(h, pkcs11.CKA_VALUE); err == nil && len(values[pkcs11.CKA_VALUE]) > 0 {
			t.Error("an unwrapped key can be read")
		}
		return nil
	})
}
