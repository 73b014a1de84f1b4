package key_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/did/key"
	"holdfast/internal/pubkey"
	"holdfast/internal/vectors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/mr-tron/base58"
)

func same(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// Every type of key that Holdfast has, and the prefix that did:key's specification says its DIDs start with.
func TestEveryKeyType(t *testing.T) {
	keys := map[string]crypto.PublicKey{}
	for prefix, curve := range map[string]elliptic.Curve{"zDn": elliptic.P256(), "z82": elliptic.P384(),
		"z2J9": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[prefix] = k.Public()
	}
	k1, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	keys["zQ3s"] = k1.PubKey().ToECDSA()
	signing, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["z6Mk"] = signing
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["z6LS"] = agreement.PublicKey()
	for prefix, bits := range map[string]int{"z4MX": 2048, "zgg": 4096} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		keys[prefix] = k.Public()
	}
	for prefix, pub := range keys {
		s, err := key.Create(pub)
		if err != nil || !strings.HasPrefix(s, "did:key:"+prefix) {
			t.Errorf("%s: %s, %v", prefix, s, err)
			continue
		}
		checkResolves(t, s, pub)
	}
}

func checkResolves(t *testing.T, s string, pub crypto.PublicKey) {
	t.Helper()
	r, err := key.Resolver{}.Resolve(t.Context(), s, nil)
	if err != nil {
		t.Errorf("%s: %v", s, err)
		return
	}
	id := "#" + strings.TrimPrefix(s, "did:key:")
	_, agrees := pub.(*ecdh.PublicKey)
	for _, relationship := range did.Relationships() {
		m, err := r.Document.Method(relationship, id)
		if allowed := (relationship == did.KeyAgreement) == agrees; (err == nil) != allowed {
			t.Errorf("%s for %s: %v", s, relationship, err)
		}
		if err != nil {
			continue
		}
		if got, err := m.PublicKey(); err != nil || !same(got, pub) {
			t.Errorf("%s: another key, %v", s, err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	p256, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Create(p256.PublicKey()); !errors.Is(err, holdfast.ErrUnsupported) {
		t.Errorf("an ECDH key on P-256: %v", err)
	}
	if _, err := key.Create(nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("nil: %v", err)
	}
}

func TestResolveRefuses(t *testing.T) {
	const good = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
	order8 := append([]byte{0xed, 0x01}, 0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05)
	for name, s := range map[string]string{
		"other method": "did:web:example.com", "base64url": "did:key:u7QE7aie8zraktYqOo0CpvDXNlMhV3HeJDpjrASKGLWdopKQ",
		"nothing":    "did:key:z",
		"look-alike": strings.Replace(good, "o", "0", 1), "cut off": good[:len(good)-1], "fragment": good + "#x",
		"version":         "did:key:1:" + good[8:],
		"low order point": "did:key:z" + base58.Encode(order8), "upper case": strings.ToUpper(good),
		"percent": good + "%41",
	} {
		_, err := key.Resolver{}.Resolve(t.Context(), s, nil)
		if p := did.ProblemOf(err); p == nil || p.Type != did.InvalidDID || !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, options := range []*did.ResolveOptions{{VersionNumber: 1}, {VersionID: "1"}, {VersionTime: time.Unix(1, 0)}} {
		if _, err := (key.Resolver{}).Resolve(t.Context(), good, options); did.ProblemOf(err) == nil || did.ProblemOf(err).Type != did.FeatureNotSupported {
			t.Errorf("%+v: %v", options, err)
		}
	}
}

// The published documents are of an older form of the specification, so it is the key material that is compared.
func TestVectors(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	compared := 0
	for _, file := range []string{"did-key/nist-curves.json", "did-key/ed25519-x25519.json"} {
		var set map[string]struct {
			DIDDocument struct {
				VerificationMethod []struct {
					ID              string          `json:"id"`
					PublicKeyJWK    json.RawMessage `json:"publicKeyJwk"`
					PublicKeyBase58 string          `json:"publicKeyBase58"`
				} `json:"verificationMethod"`
			} `json:"didDocument"`
		}
		if err := json.Unmarshal(vectors.Read(t, dir, file), &set); err != nil {
			t.Fatal(err)
		}
		for s, vector := range set {
			r, err := key.Resolver{}.Resolve(t.Context(), s, nil)
			if err != nil {
				t.Errorf("%s: %v", s, err)
				continue
			}
			for i, want := range vector.DIDDocument.VerificationMethod {
				got := r.Document.VerificationMethod[i]
				if got.ID != want.ID && got.ID != s+want.ID {
					t.Errorf("%s: method %s, want %s", s, got.ID, want.ID)
				}
				pub, err := got.PublicKey()
				if err != nil {
					t.Fatal(err)
				}
				compareKey(t, pub, want.PublicKeyJWK, want.PublicKeyBase58)
				compared++
			}
		}
	}
	if compared < 16 {
		t.Errorf("only %d keys compared", compared)
	}
}

func compareKey(t *testing.T, pub crypto.PublicKey, jwk json.RawMessage, inBase58 string) {
	t.Helper()
	if jwk != nil {
		if want, err := pubkey.ParseJWK(jwk); err != nil || !same(pub, want.Public) {
			t.Errorf("another key than %s, %v", jwk, err)
		}
		return
	}
	var raw []byte
	switch k := pub.(type) {
	case ed25519.PublicKey:
		raw = k
	case *ecdh.PublicKey:
		raw = k.Bytes()
	case *ecdsa.PublicKey:
		uncompressed, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		raw = append([]byte{2 | uncompressed[len(uncompressed)-1]&1}, uncompressed[1:1+len(uncompressed)/2]...)
	}
	if base58.Encode(raw) != inBase58 {
		t.Errorf("key %s, want %s", base58.Encode(raw), inBase58)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp")
	f.Add("did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := key.Resolver{}.Resolve(t.Context(), s, nil)
		if err != nil {
			return
		}
		pub, err := key.PublicKey(s)
		if err != nil || r.Document.ID != s {
			t.Fatalf("%q resolves to %s, %v", s, r.JSON, err)
		}
		if again, err := key.Create(pub); err != nil || again != s {
			t.Fatalf("%q becomes %q, %v", s, again, err)
		}
	})
}

func ExampleCreate() {
	public := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public()
	s, err := key.Create(public)
	fmt.Println(s, err)
	// Output: did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp <nil>
}

func ExampleResolver() {
	r, err := key.Resolver{}.Resolve(context.Background(), "did:key:z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(r.Document.KeyAgreement), len(r.Document.Authentication))
	// Output: 1 0
}
