package jwk_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"holdfast"
	"holdfast/did"
	"holdfast/did/jwk"
	"holdfast/internal/vectors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func same(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

func encode(text string) string {
	return "did:jwk:" + base64.RawURLEncoding.EncodeToString([]byte(text))
}

func TestEveryKeyType(t *testing.T) {
	var keys []crypto.PublicKey
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.Public())
	}
	for _, curve := range []ecdh.Curve{ecdh.X25519(), ecdh.P256(), ecdh.P384()} {
		k, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.PublicKey())
	}
	k1, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	signing, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range append(keys, k1.PubKey().ToECDSA(), signing, big.Public()) {
		s, err := jwk.Create(pub)
		if err != nil {
			t.Errorf("%T: %v", pub, err)
			continue
		}
		_, agrees := pub.(*ecdh.PublicKey)
		checkResolves(t, s, pub, agrees, !agrees)
	}
}

func checkResolves(t *testing.T, s string, pub crypto.PublicKey, agrees, signs bool) {
	t.Helper()
	r, err := jwk.Resolver{}.Resolve(t.Context(), s, nil)
	if err != nil {
		t.Errorf("%s: %v", s, err)
		return
	}
	for _, relationship := range did.Relationships() {
		allowed := signs
		if relationship == did.KeyAgreement {
			allowed = agrees
		}
		m, err := r.Document.Method(relationship, "#0")
		if (err == nil) != allowed {
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

const (
	p256 = `{"crv":"P-256","kty":"EC","x":"acbIQiuMs3i8_uszEjJ2tpTtRM4EU3yz91PH6CdH2V0","y":"_KcyLj9vWMptnmKtm46GqDz8wf74I5LKgrl2GzH3nSE"`
	ed   = `{"crv":"Ed25519","kty":"OKP","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"`
	x    = `{"kty":"OKP","crv":"X25519","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"`
)

// What a JWK says it is for decides about the relationships.
func TestUse(t *testing.T) {
	for text, want := range map[string]struct{ agrees, signs bool }{
		p256 + `}`:                         {true, true},
		p256 + `,"use":"sig"}`:             {false, true},
		p256 + `,"use":"enc"}`:             {true, false},
		p256 + `,"alg":"ES256"}`:           {false, true},
		p256 + `,"alg":"ECDH-ES+A256KW"}`:  {true, false},
		ed + `}`:                           {false, true},
		ed + `,"use":"sig","alg":"EdDSA"}`: {false, true},
		x + `}`:                            {true, false},
		x + `,"use":"enc"}`:                {true, false},
		" " + p256 + " , \"use\" : \"sig\", \"more\":\"<&>\u2028\"}\n": {false, true},
	} {
		s := encode(text)
		pub, err := jwk.PublicKey(s)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		r, err := jwk.Resolver{}.Resolve(t.Context(), s, nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if agrees, signs := len(r.Document.KeyAgreement) == 1, len(r.Document.Authentication) == 1; agrees != want.agrees || signs != want.signs {
			t.Errorf("%s: agrees %v, signs %v", text, agrees, signs)
		}
		if m := r.Document.VerificationMethod[0]; m.ID != s+"#0" || m.Type != did.TypeJSONWebKey2020 || pub == nil {
			t.Errorf("%s: %+v", text, m)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"other method": "did:web:example.com", "not base64": "did:jwk:e.J", "padding": "did:jwk:e30%3D",
		"empty object": encode(`{}`),
		"private key":  encode(ed + `,"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`),
		"symmetric":    encode(`{"kty":"oct","k":"AA"}`),
		"duplicate":    encode(p256 + `,"kty":"EC"}`), "wrong alg": encode(p256 + `,"alg":"ES384"}`),
		"loose bits":     encode(ed + "}")[:len(encode(ed+"}"))-1] + "1",
		"sig for X25519": encode(x + `,"use":"sig"}`), "fragment": encode(ed+"}") + "#0",
		"huge": "did:jwk:" + strings.Repeat("A", 1<<20),
	} {
		_, err := jwk.Resolver{}.Resolve(t.Context(), s, nil)
		if p := did.ProblemOf(err); p == nil || p.Type != did.InvalidDID || !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := jwk.Resolver{}.Resolve(t.Context(), encode(ed+"}"), &did.ResolveOptions{VersionNumber: 1})
	if p := did.ProblemOf(err); p == nil || p.Type != did.FeatureNotSupported {
		t.Errorf("a version: %v", err)
	}
}

// The specification's examples. In one of them "did:jwk:$eyJ" is a slip of the pen.
func TestVectors(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	var set struct {
		Vectors []struct {
			DID         string         `json:"did"`
			DIDDocument map[string]any `json:"didDocument"`
		} `json:"vectors"`
	}
	text := strings.ReplaceAll(string(vectors.Read(t, dir, "did-jwk/spec-examples.json")), "did:jwk:$", "did:jwk:")
	if err := json.Unmarshal([]byte(text), &set); err != nil || len(set.Vectors) < 2 {
		t.Fatalf("%d vectors, %v", len(set.Vectors), err)
	}
	for _, vector := range set.Vectors {
		r, err := jwk.Resolver{}.Resolve(t.Context(), vector.DID, nil)
		if err != nil {
			t.Errorf("%s: %v", vector.DID, err)
			continue
		}
		var got map[string]any
		if err := json.Unmarshal(r.JSON, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, vector.DIDDocument) {
			t.Errorf("document\n%v\nwant\n%v", got, vector.DIDDocument)
		}
	}
}

func FuzzResolve(f *testing.F) {
	for _, text := range []string{p256 + "}", ed + "}", x + `,"use":"enc"}`} {
		f.Add(encode(text))
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := jwk.Resolver{}.Resolve(t.Context(), s, nil)
		if err != nil {
			return
		}
		if _, err := r.Document.VerificationMethod[0].PublicKey(); err != nil || r.Document.ID != s {
			t.Fatalf("%q resolves to %s, %v", s, r.JSON, err)
		}
	})
}

func ExampleCreate() {
	private, err := ecdh.X25519().NewPrivateKey([]byte("an example needs the same key..."))
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := jwk.Create(private.PublicKey())
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := jwk.Resolver{}.Resolve(context.Background(), s, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", r.Document.VerificationMethod[0].PublicKeyJWK)
	// Output: {"crv":"X25519","kty":"OKP","use":"enc","x":"7UOtgGYFtszU_aI93T4nPXFRY6fd5BwhjFKQHoMc60k"}
}
