package holdfast_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"holdfast"
)

func TestCodeOf(t *testing.T) {
	inner := &holdfast.Error{Op: "sign", Code: holdfast.ErrAuth, Retries: 2}
	for name, test := range map[string]struct {
		err  error
		want holdfast.Code
	}{
		"nil":            {nil, holdfast.ErrInternal},
		"foreign":        {errors.New("x"), holdfast.ErrInternal},
		"code":           {holdfast.ErrBusy, holdfast.ErrBusy},
		"error":          {inner, holdfast.ErrAuth},
		"wrapped":        {fmt.Errorf("open: %w", inner), holdfast.ErrAuth},
		"outermost":      {holdfast.Errorf(holdfast.ErrLocked, "", "%w", inner), holdfast.ErrLocked},
		"joined":         {errors.Join(errors.New("x"), inner), holdfast.ErrAuth},
		"joined nothing": {errors.Join(errors.New("x"), context.Canceled), holdfast.ErrInternal},
	} {
		if got := holdfast.CodeOf(test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	outer := holdfast.Errorf(holdfast.ErrUnavailable, "open", "%w", inner)
	if !errors.Is(outer, holdfast.ErrUnavailable) || !errors.Is(outer, holdfast.ErrAuth) {
		t.Error("errors.Is does not find both the outermost code and the one in the cause")
	}
	if got := inner.Error(); got != "sign: the device refused the PIN (2 tries left)" {
		t.Errorf("the sentence is %q", got)
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	type holder struct {
		secret  holdfast.Secret
		pointer *holdfast.Secret
	}
	s := holdfast.NewSecret([]byte("hunter2"))
	h := holder{s, &s}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", s, "holder", h)
	text, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %+v %#v", s, s, s, s, s, s, s, h, &h, h) + logged.String() + string(text)
	for _, form := range []string{"hunter2", "68756e74657232", "104 117 110"} {
		if strings.Contains(all, form) {
			t.Errorf("a secret printed as %s: %s", form, all)
		}
	}
	s.Wipe()
	if string(s.Bytes()) != "\x00\x00\x00\x00\x00\x00\x00" {
		t.Error("the secret was not wiped")
	}
	if (holdfast.Secret{}).Len() != 0 {
		t.Error("the zero Secret is not empty")
	}
}

func TestParseAlgorithm(t *testing.T) {
	for _, a := range holdfast.Algorithms() {
		if got, err := holdfast.ParseAlgorithm(strings.ToLower(string(a))); err != nil || got != a {
			t.Errorf("%s: %s, %v", a, got, err)
		}
		if !a.Valid() || a.JOSE() == "" || a.Use() == holdfast.UseNone || a.Bits() == 0 {
			t.Errorf("%s is not described", a)
		}
	}
	for in, want := range map[string]holdfast.Algorithm{"RS256": holdfast.RS256_2048, "ed25519": holdfast.EdDSA, "X25519": holdfast.ECDHX25519} {
		if got, err := holdfast.ParseAlgorithm(in); err != nil || got != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	if _, err := holdfast.ParseAlgorithm("HS256"); !errors.Is(err, holdfast.ErrInvalid) || !strings.Contains(err.Error(), "ES256") {
		t.Errorf("HS256: %v", err)
	}
}

func TestCheckInput(t *testing.T) {
	d32 := make([]byte, 32)
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	for name, test := range map[string]struct {
		a      holdfast.Algorithm
		digest []byte
		opts   crypto.SignerOpts
		want   error
	}{
		"own":                    {holdfast.ES256, d32, nil, nil},
		"agreeing":               {holdfast.ES256, d32, crypto.SHA256, nil},
		"other hash":             {holdfast.ES256, d32, crypto.SHA512, holdfast.ErrInvalid},
		"short":                  {holdfast.ES256, d32[:31], nil, holdfast.ErrInvalid},
		"empty":                  {holdfast.ES384, nil, nil, holdfast.ErrInvalid},
		"PSS":                    {holdfast.PS256_2048, d32, pss, nil},
		"PSS salt":               {holdfast.PS256_2048, d32, &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}, holdfast.ErrInvalid},
		"PSS asked of PKCS #1":   {holdfast.RS256_2048, d32, pss, holdfast.ErrInvalid},
		"PKCS #1 asked of PSS":   {holdfast.PS256_2048, d32, crypto.SHA256, holdfast.ErrInvalid},
		"Ed25519":                {holdfast.EdDSA, []byte("any"), &ed25519.Options{}, nil},
		"Ed25519ph":              {holdfast.EdDSA, d32, &ed25519.Options{Hash: crypto.SHA512}, holdfast.ErrInvalid},
		"Ed25519ctx":             {holdfast.EdDSA, d32, &ed25519.Options{Context: "x"}, holdfast.ErrInvalid},
		"too long":               {holdfast.EdDSA, make([]byte, holdfast.MaxMessage+1), nil, holdfast.ErrInvalid},
		"a key that cannot sign": {holdfast.ECDHP256, d32, nil, holdfast.ErrUnsupported},
	} {
		if err := test.a.CheckInput(test.digest, test.opts); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func ExampleParseAlgorithm() {
	a, _ := holdfast.ParseAlgorithm("rs256-3072")
	fmt.Println(a, a.JOSE(), a.Bits(), a.Use())
	// Output: RS256-3072 RS256 3072 sign
}
