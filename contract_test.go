package holdfast_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"

	"holdfast"
)

func TestKeySpecCheck(t *testing.T) {
	good := holdfast.KeySpec{Label: "a key", Algorithm: holdfast.ES256}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*holdfast.KeySpec){
		"no label":         func(s *holdfast.KeySpec) { s.Label = "" },
		"long label":       func(s *holdfast.KeySpec) { s.Label = strings.Repeat("x", holdfast.MaxLabel+1) },
		"slash":            func(s *holdfast.KeySpec) { s.Label = "a/b" },
		"control":          func(s *holdfast.KeySpec) { s.Label = "a\nb" },
		"outer space":      func(s *holdfast.KeySpec) { s.Label = " a" },
		"not UTF-8":        func(s *holdfast.KeySpec) { s.Label = "\xff" },
		"no algorithm":     func(s *holdfast.KeySpec) { s.Algorithm = "" },
		"unknown":          func(s *holdfast.KeySpec) { s.Algorithm = "HS256" },
		"residence":        func(s *holdfast.KeySpec) { s.Residence = holdfast.Wrapped + 1 },
		"PIN policy":       func(s *holdfast.KeySpec) { s.PIN = holdfast.PINAlways + 1 },
		"touch policy":     func(s *holdfast.KeySpec) { s.Touch = holdfast.TouchCached + 1 },
		"wrapped in place": func(s *holdfast.KeySpec) { s.Residence, s.Place = holdfast.Wrapped, "9c" },
		"short identifier": func(s *holdfast.KeySpec) { s.ID = make([]byte, 15) },
	} {
		spec := good
		change(&spec)
		if err := spec.Check(); holdfast.CodeOf(err) != holdfast.ErrInvalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckSpec(t *testing.T) {
	caps := holdfast.Capabilities{Kind: "tpm2", DefaultResidence: holdfast.Wrapped, Algorithms: []holdfast.Support{
		{Algorithm: holdfast.ES256, Resident: true, Wrapped: true}, {Algorithm: holdfast.ES384, Wrapped: true}}}
	for _, test := range []struct {
		spec holdfast.KeySpec
		want string // a part of the refusal, empty for none
	}{
		{holdfast.KeySpec{Label: "k", Algorithm: holdfast.ES256}, ""},
		{holdfast.KeySpec{Label: "k", Algorithm: holdfast.ES384}, ""},
		{holdfast.KeySpec{Label: "k", Algorithm: holdfast.ES384, Residence: holdfast.Resident}, "it makes ES256"},
		// A place in the device asks for a resident key.
		{holdfast.KeySpec{Label: "k", Algorithm: holdfast.ES384, Place: "0x81008000"}, "no resident ES384"},
		{holdfast.KeySpec{Label: "k", Algorithm: holdfast.EdDSA}, "it makes ES256, ES384"},
	} {
		err := caps.CheckSpec(test.spec)
		if test.want == "" && err != nil || test.want != "" &&
			(holdfast.CodeOf(err) != holdfast.ErrUnsupported || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v", test.spec, err)
		}
	}
	if err := (holdfast.Capabilities{}).CheckSpec(holdfast.KeySpec{Label: "k", Algorithm: holdfast.ES256}); err == nil ||
		!strings.Contains(err.Error(), "it makes none") {
		t.Error(err)
	}
}

// TestCheckPublic gives every algorithm every kind of public key; each pair that does not belong together is refused.
func TestCheckPublic(t *testing.T) {
	fits := map[holdfast.Algorithm]crypto.PublicKey{
		holdfast.ES256: ecdsaKey(t, elliptic.P256()), holdfast.ES384: ecdsaKey(t, elliptic.P384()),
		holdfast.ES512: ecdsaKey(t, elliptic.P521()), holdfast.EdDSA: make(ed25519.PublicKey, ed25519.PublicKeySize),
		holdfast.RS256_2048: rsaKey(2048), holdfast.RS256_3072: rsaKey(3072), holdfast.PS256_4096: rsaKey(4096),
		holdfast.ECDHP256: ecdhKey(t, ecdh.P256()), holdfast.ECDHP384: ecdhKey(t, ecdh.P384()),
		holdfast.ECDHX25519: ecdhKey(t, ecdh.X25519()), holdfast.A256GCM: nil,
	}
	for a := range fits {
		for b, pub := range fits {
			if err := a.CheckPublic(pub); (err == nil) != (a == b) {
				t.Errorf("%s with the public key of %s: %v", a, b, err)
			}
		}
	}
	for _, pub := range []crypto.PublicKey{&rsa.PublicKey{}, &ecdsa.PublicKey{}, ed25519.PublicKey{1}, "key"} {
		for _, a := range holdfast.Algorithms() {
			if err := a.CheckPublic(pub); holdfast.CodeOf(err) != holdfast.ErrInvalid || err == nil {
				t.Errorf("%s with a %T: %v", a, pub, err)
			}
		}
	}
}

func ecdsaKey(t *testing.T, c elliptic.Curve) *ecdsa.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &k.PublicKey
}

func ecdhKey(t *testing.T, c ecdh.Curve) *ecdh.PublicKey {
	t.Helper()
	k, err := c.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.PublicKey()
}

// rsaKey has the length of a key and is none.
func rsaKey(bits int) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), uint(bits-1)), E: 65537}
}

func TestVerify(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := holdfast.ES256.Digest([]byte("message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, a holdfast.Algorithm, pub crypto.PublicKey, digest, signature []byte, want holdfast.Code) {
		t.Helper()
		if err := holdfast.Verify(a, pub, digest, signature); err == nil || holdfast.CodeOf(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := holdfast.Verify(holdfast.ES256, &key.PublicKey, digest, signature); err != nil {
		t.Error(err)
	}
	other := holdfast.ES256.Digest([]byte("another"))
	check("another message", holdfast.ES256, &key.PublicKey, other, signature, holdfast.ErrIntegrity)
	check("no signature", holdfast.ES256, &key.PublicKey, digest, nil, holdfast.ErrIntegrity)
	check("another algorithm", holdfast.ES384, &key.PublicKey, make([]byte, 48), signature, holdfast.ErrInvalid)
	check("a short digest", holdfast.ES256, &key.PublicKey, digest[1:], signature, holdfast.ErrInvalid)
	check("no public key", holdfast.ES256, nil, digest, signature, holdfast.ErrInvalid)
	check("an algorithm that does not sign", holdfast.A256GCM, nil, digest, signature, holdfast.ErrUnsupported)
}

// TestLowS signs with a curve that is called secp256k1 and is P-256: the rule is about S and the group's order.
func TestLowS(t *testing.T) {
	params := *elliptic.P256().Params()
	params.Name = "secp256k1"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := holdfast.ES256K.Digest([]byte("message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
	if err != nil {
		t.Fatal(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &sig); err != nil {
		t.Fatal(err)
	}
	high := new(big.Int).Sub(params.N, sig.S)
	low := sig.S
	if low.Cmp(high) > 0 {
		low, high = high, low
	}
	//lint:ignore SA1019 there is no other way to put a point on another curve.
	pub := &ecdsa.PublicKey{Curve: &params, X: key.X, Y: key.Y}
	for _, test := range []struct {
		s    *big.Int
		good bool
	}{{low, true}, {high, false}} {
		sig.S = test.s
		encoded, err := asn1.Marshal(sig)
		if err != nil {
			t.Fatal(err)
		}
		if err := holdfast.Verify(holdfast.ES256K, pub, digest, encoded); (err == nil) != test.good {
			t.Errorf("S = %d: %v", test.s, err)
		}
	}
}
