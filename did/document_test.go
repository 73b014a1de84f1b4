package did_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast"
	"holdfast/did"
	"holdfast/internal/vectors"
)

const exampleDocument = `{
  "@context": ["https://www.w3.org/ns/did/v1", {"@vocab": "https://example.com/"}],
  "id": "did:example:1",
  "controller": ["did:example:1", "did:example:2"],
  "alsoKnownAs": ["https://ada.example"],
  "verificationMethod": [
    {"id": "#key-1", "type": "Multikey", "controller": "did:example:1",
"publicKeyMultibase": "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"},
    {"id": "did:example:1#key-2", "type": "JsonWebKey", "controller": "did:example:1",
     "publicKeyJwk": {"kty":"OKP","crv":"X25519","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}},
    {"id": "#old", "type": "SomethingElse2018", "controller": "did:example:1", "publicKeyBase58": "x"}
  ],
  "authentication": ["#key-1", {"id": "#only-here", "type": "Multikey", "controller": "did:example:2",
    "publicKeyMultibase": "zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"}],
  "assertionMethod": ["did:example:1#key-1", "#old", "#nowhere"],
  "keyAgreement": ["#key-2"],
  "capabilityInvocation": ["did:example:2#key-9"],
  "service": [{"id": "#files", "type": ["a", "b"], "serviceEndpoint": {"uri": "https://x.example"}}],
  "extension": 1
}`

func TestParseDocument(t *testing.T) {
	d, err := did.ParseDocument([]byte(exampleDocument))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Context) != 1 || len(d.Controller) != 2 || d.Service[0].ID != "did:example:1#files" || len(d.Service[0].Type) != 2 {
		t.Errorf("%+v", d)
	}
	for _, use := range []struct {
		relationship did.Relationship
		id           string
	}{
		{did.Authentication, "#key-1"}, {did.Authentication, "did:example:1#only-here"},
		{did.AssertionMethod, "#key-1"}, {did.KeyAgreement, "#key-2"},
	} {
		m, err := d.Method(use.relationship, use.id)
		if err != nil {
			t.Errorf("%s %s: %v", use.relationship, use.id, err)
			continue
		}
		if _, err := m.PublicKey(); err != nil {
			t.Errorf("%s: %v", m.ID, err)
		}
	}
	for _, use := range []struct {
		relationship did.Relationship
		id           string
	}{
		{did.KeyAgreement, "#key-1"}, {did.AssertionMethod, "#only-here"}, {did.AssertionMethod, "#nowhere"},
		{did.CapabilityInvocation, "did:example:2#key-9"},
		{did.CapabilityDelegation, "#key-1"}, {"verificationMethod", "#key-1"}, {"", "#key-1"},
		{did.Authentication, "did:example:2#key-1"},
	} {
		if m, err := d.Method(use.relationship, use.id); !errors.Is(err, holdfast.ErrDenied) {
			t.Errorf("%s %s: %+v, %v", use.relationship, use.id, m, err)
		}
	}
	old, err := d.Method(did.AssertionMethod, "#old")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.PublicKey(); !errors.Is(err, holdfast.ErrUnsupported) {
		t.Errorf("an old type: %v", err)
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": ``, "not JSON": `x`, "an array": `[]`, "no id": `{}`, "id a number": `{"id":1}`,
		"id no DID": `{"id":"urn:x"}`, "id a DID URL": `{"id":"did:a:b#c"}`,
		"id twice": `{"id":"did:a:b","id":"did:a:c"}`, "id twice by escape": `{"id":"did:a:b","\u0069d":"did:a:c"}`,
		"controller no DID":    `{"id":"did:a:b","controller":"x"}`,
		"controller a number":  `{"id":"did:a:b","controller":1}`,
		"context a number":     `{"id":"did:a:b","@context":1}`,
		"contexts numbers":     `{"id":"did:a:b","@context":[1]}`,
		"alsoKnownAs a text":   `{"id":"did:a:b","alsoKnownAs":"x"}`,
		"methods an object":    `{"id":"did:a:b","verificationMethod":{}}`,
		"method a text":        `{"id":"did:a:b","verificationMethod":["#x"]}`,
		"method without id":    `{"id":"did:a:b","verificationMethod":[{"type":"Multikey"}]}`,
		"method without type":  `{"id":"did:a:b","verificationMethod":[{"id":"#x"}]}`,
		"method id twice":      `{"id":"did:a:b","verificationMethod":[{"id":"#x","type":"a"},{"id":"did:a:b#x","type":"a"}]}`,
		"method id embedded":   `{"id":"did:a:b","verificationMethod":[{"id":"#x","type":"a"}],"authentication":[{"id":"#x","type":"a"}]}`,
		"method id no URL":     `{"id":"did:a:b","verificationMethod":[{"id":"x","type":"a"}]}`,
		"method of nobody":     `{"id":"did:a:b","verificationMethod":[{"id":"#x","type":"a","controller":"x"}]}`,
		"jwk a text":           `{"id":"did:a:b","verificationMethod":[{"id":"#x","type":"a","publicKeyJwk":"x"}]}`,
		"multibase null":       `{"id":"did:a:b","verificationMethod":[{"id":"#x","type":"a","publicKeyMultibase":null}]}`,
		"reference a number":   `{"id":"did:a:b","authentication":[1]}`,
		"reference no URL":     `{"id":"did:a:b","authentication":["x"]}`,
		"services an object":   `{"id":"did:a:b","service":{}}`,
		"service without id":   `{"id":"did:a:b","service":[{"type":"a","serviceEndpoint":"b"}]}`,
		"service without type": `{"id":"did:a:b","service":[{"id":"#x","serviceEndpoint":"b"}]}`,
		"service endpoint":     `{"id":"did:a:b","service":[{"id":"#x","type":"a","serviceEndpoint":1}]}`,
		"service id twice":     `{"id":"did:a:b","service":[{"id":"#x","type":"a","serviceEndpoint":"b"},{"id":"did:a:b#x","type":"a","serviceEndpoint":"b"}]}`,
		"deep":                 `{"id":"did:a:b","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		"huge":                 `{"id":"did:a:b","x":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		_, err := did.ParseDocument([]byte(text))
		wantProblem(t, name, err, did.InvalidDIDDocument)
	}
}

func TestMethodsWithTwoKeys(t *testing.T) {
	for _, m := range []did.VerificationMethod{
		{Type: did.TypeMultikey, PublicKeyMultibase: "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", PublicKeyJWK: []byte(`{}`)},
		{Type: did.TypeJSONWebKey, PublicKeyMultibase: "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", PublicKeyJWK: []byte(`{}`)},
		{Type: did.TypeMultikey}, {Type: did.TypeJSONWebKey},
	} {
		if _, err := m.PublicKey(); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// A few of RFC 8785's own cases, for when the published vectors are elsewhere.
func TestCanonicalize(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1, "a":[true,null,"x"]}`:        `{"a":[true,null,"x"],"b":1}`,
		`[333333333.33333329,1E30,4.50,2e-3]`: `[333333333.3333333,1e+30,4.5,0.002]`,
		"{\"\u20ac\":1,\"\\r\":2,\"\\ufb33\":3,\"1\":4,\"\\ud83d\\ude00\":5,\"\u0080\":6,\"\u00f6\":7}": "{\"\\r\":2,\"1\":4,\"\u0080\":6,\"\u00f6\":7,\"\u20ac\":1,\"\U0001f600\":5,\"\ufb33\":3}",
		`"\u000f\u0041\/<\u2028"`: "\"\\u000fA/<\u2028\"",
		`-0`:                      `0`,
	} {
		if got, err := did.Canonicalize([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%s becomes %s, %v; want %s", in, got, err, want)
		}
	}
	for name, in := range map[string]string{
		"duplicate": `{"a":1,"a":1}`, "big integer": `[9007199254740993]`, "surrogate": `"\udead"`,
		"huge": `"` + strings.Repeat("x", 1<<20) + `"`,
	} {
		if got, err := did.Canonicalize([]byte(in)); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %.40s, %v", name, got, err)
		}
	}
}

func TestCanonicalizeVectors(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	inputs, err := filepath.Glob(filepath.Join(dir, "jcs", "input", "*.json"))
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, path := range inputs {
		input, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		want := vectors.Read(t, dir, "jcs/output/"+name)
		if got, err := did.Canonicalize(input); err != nil || string(got) != string(want) {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(exampleDocument))
	f.Add([]byte(`{"id":"did:a:b","authentication":[{"id":"#x","type":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := did.ParseDocument(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range did.Relationships() {
			if m, err := d.Method(r, "#key-1"); err == nil && m.ID != d.ID+"#key-1" {
				t.Fatalf("asked for #key-1, got %s", m.ID)
			}
		}
		if len(text) < did.MaxDocument {
			if again, err := did.ParseDocument(text); err != nil || again.ID != d.ID {
				t.Fatalf("%s becomes %s: %v", data, text, err)
			}
		}
	})
}

func FuzzCanonicalize(f *testing.F) {
	f.Add([]byte(`{"b":1.5e3,"a":["\ud83d\ude00"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		canonical, err := did.Canonicalize(data)
		if err != nil {
			return
		}
		again, err := did.Canonicalize(canonical)
		if err != nil || string(again) != string(canonical) {
			t.Fatalf("%s becomes %s becomes %s, %v", data, canonical, again, err)
		}
	})
}

func ExampleParseDocument() {
	d, err := did.ParseDocument([]byte(`{"id":"did:example:1",
		"verificationMethod":[{"id":"#k","type":"Multikey","controller":"did:example:1",
			"publicKeyMultibase":"z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"}],
		"assertionMethod":["#k"]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := d.Method(did.AssertionMethod, "#k")
	fmt.Println(m.ID, err)
	_, err = d.Method(did.Authentication, "#k")
	fmt.Println(err)
	// Output:
	// did:example:1#k <nil>
	// did:example:1 does not list did:example:1#k for authentication
}
