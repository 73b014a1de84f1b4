package hsm

import (
	"errors"
	"strings"
	"testing"

	"holdfast"
)

func TestParseURI(t *testing.T) {
	for text, want := range map[string]uri{
		"pkcs11:":                                   {},
		"PKCS11:object=a":                           {"object": "a"},
		"pkcs11:token=The%20Software;id=%69%95":     {"token": "The Software", "id": "\x69\x95"},
		"pkcs11:object=my-key;type=private":         {"object": "my-key", "type": "private"},
		"pkcs11:object=my%3bkey":                    {"object": "my;key"},
		"pkcs11:id=":                                {"id": ""},
		"pkcs11:model=1.0;serial=DECC0401648;id=+=": {"model": "1.0", "serial": "DECC0401648", "id": "+="},
	} {
		got, err := parseURI(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q", text, name, got[name], value)
			}
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, text := range []string{
		"", "pkcs11", "pkcs12:", "http://example.org", "tpm:object=a",
		"pkcs11:object", "pkcs11:object=a;object=b", "pkcs11:;", "pkcs11:object=a;", "pkcs11:unknown=1", "pkcs11:x-vendor=1",
		"pkcs11:object=a b", "pkcs11:object=%", "pkcs11:object=%4", "pkcs11:object=%zz", "pkcs11:object=a/b", "pkcs11:object=\x00",
		"pkcs11:type=key", "pkcs11:object=a?pin-value=1234", "pkcs11:object=a?pin-source=file:/pin", "pkcs11:object=a?module-path=/m.so",
		"pkcs11:pin-value=1234", "pkcs11:object=a?",
	} {
		_, err := parseURI(text)
		if !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%q: the error repeats the PIN: %v", text, err)
		}
	}
}

func TestCanonicalRef(t *testing.T) {
	u := uri{"id": "a\xff", "serial": "12 3", "token": "täst;"}
	const want = "pkcs11:token=t%C3%A4st%3B;serial=12%203;id=%61%FF"
	if got := u.ref(); got != want {
		t.Errorf("ref %s, want %s", got, want)
	}
}

func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"pkcs11:token=holdfast%20test;serial=f447f091afcaa57e;id=%A0%40%08", "PKCS11:object=my-key;type=private", "pkcs11:",
		"pkcs11:object=a?pin-value=1234", "pkcs11:id=%zz", "pkcs11:slot-id=1;library-version=3.0",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseURI(text)
		if err != nil {
			if !errors.Is(err, holdfast.ErrInvalid) {
				t.Fatalf("error without code: %v", err)
			}
			return
		}
		ref := u.ref()
		again, err := parseURI(string(ref))
		if err != nil {
			t.Fatalf("%s does not parse: %v", ref, err)
		}
		if len(again) != len(u) || again.ref() != ref {
			t.Fatalf("%q became %s, which became %s", text, ref, again.ref())
		}
		for name, value := range u {
			if again[name] != value {
				t.Fatalf("%s: %q became %q", name, value, again[name])
			}
		}
	})
}
