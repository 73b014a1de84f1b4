package custody

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast"
	"holdfast/custody/store"
)

func TestEveryAlgorithmInBothResidencesAcrossRestart(t *testing.T) {
	f := newFixture(t)
	type made struct {
		key       Key
		digest    []byte
		encrypted []byte
	}
	var all []made
	for _, a := range holdfast.Algorithms() {
		for _, r := range []holdfast.Residence{holdfast.Resident, holdfast.Wrapped} {
			name := fmt.Sprintf("%s %s", a, r)
			m := made{key: f.create(t, name, a, r), digest: a.Digest([]byte(name))}
			if m.key.Name != name || m.key.Residence != r || m.key.Algorithm != a || m.key.Backend != "soft" ||
				m.key.Created.IsZero() || m.key.ID == (store.ID{}) {
				t.Errorf("%+v", m.key)
			}
			if a.Use() == holdfast.UseEncrypt {
				var err error
				if m.encrypted, err = f.service.Encrypt(t.Context(), name, []byte("wallet"),
					[]byte("for me")); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, m)
		}
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			f.restart(t)
		}
		for _, m := range all {
			got, err := f.service.Key(t.Context(), m.key.Name)
			if err != nil || !reflect.DeepEqual(got.Public, m.key.Public) || got.ID != m.key.ID ||
				got.Ref != m.key.Ref {
				t.Errorf("%s: got %+v, %v", m.key.Name, got, err)
			}
			if byRef, err := f.service.KeyByRef(t.Context(), "soft", m.key.Ref); err != nil ||
				byRef.Name != m.key.Name {
				t.Errorf("%s by ref: %+v, %v", m.key.Name, byRef, err)
			}
			checkUse(t, f, m.key, m.digest, m.encrypted)
		}
	}
}

// checkUse uses a key for what it is made for and sees that it refuses the rest.
func checkUse(t *testing.T, f *fixture, k Key, digest, encrypted []byte) {
	t.Helper()
	signature, signErr := f.service.Sign(t.Context(), k.Name, digest)
	_, batchErr := f.service.SignBatch(t.Context(), k.Name, [][]byte{digest})
	plain, decryptErr := f.service.Decrypt(t.Context(), k.Name, encrypted, []byte("for me"))
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if own, ok := k.Public.(*ecdh.PublicKey); ok {
		other, err = own.Curve().GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	secret, agreeErr := f.service.Agree(t.Context(), k.Name, other.PublicKey())
	use := k.Algorithm.Use()
	for _, used := range []struct {
		use holdfast.Use
		err error
	}{{holdfast.UseSign, signErr}, {holdfast.UseSign, batchErr}, {holdfast.UseAgree, agreeErr}, {holdfast.UseEncrypt, decryptErr}} {
		if used.use != use {
			wantCode(t, fmt.Sprintf("%s with %s", used.use, k.Name), used.err, holdfast.ErrUnsupported)
		} else if used.err != nil {
			t.Errorf("%s with %s: %v", used.use, k.Name, used.err)
		}
	}
	switch use {
	case holdfast.UseSign:
		if err := holdfast.Verify(k.Algorithm, k.Public, digest, signature); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	case holdfast.UseAgree:
		want, err := other.ECDH(k.Public.(*ecdh.PublicKey))
		if err != nil || !bytes.Equal(secret, want) {
			t.Errorf("%s: the two sides do not agree: %v", k.Name, err)
		}
	default:
		if string(plain) != "wallet" {
			t.Errorf("%s: decrypted %q", k.Name, plain)
		}
		_, err := f.service.Decrypt(t.Context(), k.Name, encrypted, []byte("for you"))
		wantCode(t, "changed additional data", err, holdfast.ErrIntegrity)
	}
}

func TestPurposes(t *testing.T) {
	for _, p := range Purposes() {
		if parsed, err := ParsePurpose(string(p)); parsed != p || err != nil || p.Text() == "" || len(p.Uses()) == 0 {
			t.Errorf("%s: %v, %v", p, parsed, err)
		}
		for _, a := range holdfast.Algorithms() {
			fits := slices.Contains(p.Uses(), a.Use())
			if err := p.Check(a); (err == nil) != fits {
				t.Errorf("%s for %s: %v", a, p, err)
			}
			if slices.Contains(PurposesFor(a), p) != fits {
				t.Errorf("PurposesFor(%s) = %v", a, PurposesFor(a))
			}
		}
	}
	_, err := ParsePurpose("Assertion")
	wantCode(t, "wrong case", err, holdfast.ErrInvalid)
	err = PurposeAssertion.Check(holdfast.ECDHP256)
	wantCode(t, "agreement key for assertion", err, holdfast.ErrInvalid)
	if !strings.Contains(err.Error(), "key-agreement, wallet-kek, backup-kek, share-holder, transport") {
		t.Errorf("the error does not name what fits: %v", err)
	}
}

func TestBadRequestsChangeNothing(t *testing.T) {
	f := newFixture(t)
	f.create(t, "taken", holdfast.ES256, holdfast.Wrapped)
	good := request("new", holdfast.ES256, holdfast.Resident)
	for what, c := range map[string]struct {
		change func(*CreateKeyRequest)
		code   holdfast.Code
	}{
		"no name":                {func(r *CreateKeyRequest) { r.Name = "" }, holdfast.ErrInvalid},
		"slash in the name":      {func(r *CreateKeyRequest) { r.Name = "a/b" }, holdfast.ErrInvalid},
		"name taken":             {func(r *CreateKeyRequest) { r.Name = "taken" }, holdfast.ErrExists},
		"unknown backend":        {func(r *CreateKeyRequest) { r.Backend = "hard" }, holdfast.ErrNotFound},
		"unknown algorithm":      {func(r *CreateKeyRequest) { r.Algorithm = "ES999" }, holdfast.ErrInvalid},
		"no purpose":             {func(r *CreateKeyRequest) { r.Purpose = "" }, holdfast.ErrInvalid},
		"purpose of another use": {func(r *CreateKeyRequest) { r.Purpose = PurposeWalletKEK }, holdfast.ErrInvalid},
		"unknown residence":      {func(r *CreateKeyRequest) { r.Residence = 9 }, holdfast.ErrInvalid},
		"wrapped with a place":   {func(r *CreateKeyRequest) { r.Residence, r.Place = holdfast.Wrapped, "9c" }, holdfast.ErrInvalid},
		"place it does not have": {func(r *CreateKeyRequest) { r.Place = "9c" }, holdfast.ErrUnsupported},
	} {
		r := good
		c.change(&r)
		_, err := f.service.CreateKey(t.Context(), r)
		wantCode(t, what, err, c.code)
	}
	if refs := f.refs(t); len(refs) != 0 {
		t.Errorf("left on the device: %v", refs)
	}
	if n := f.store.Count("soft"); n != 1 {
		t.Errorf("%d records", n)
	}
	if intents, err := f.store.Intents(t.Context(), "soft"); err != nil || len(intents) != 0 {
		t.Errorf("left intents: %v, %v", intents, err)
	}
	f.create(t, "new", holdfast.ES256, holdfast.Resident)
	for what, digest := range map[string][]byte{"empty": nil, "short": make([]byte, 31), "long": make([]byte, 33)} {
		_, err := f.service.Sign(t.Context(), "new", digest)
		wantCode(t, what+" digest", err, holdfast.ErrInvalid)
	}
	_, err := f.service.Sign(t.Context(), "nobody", make([]byte, 32))
	wantCode(t, "unknown key", err, holdfast.ErrNotFound)
	_, err = f.service.Agree(t.Context(), "new", nil)
	wantCode(t, "no peer", err, holdfast.ErrInvalid)
	_, _, err = f.service.Keys(t.Context(), ListOptions{Limit: -1})
	wantCode(t, "negative limit", err, holdfast.ErrInvalid)
}

func TestAgreementWithAnotherCurve(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ECDHP256, holdfast.Resident)
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.service.Agree(t.Context(), "a", peer.PublicKey())
	wantCode(t, "X25519 with P-256", err, holdfast.ErrInvalid)
}

func TestOneOfManyWithOneNameWins(t *testing.T) {
	f := newFixture(t)
	for _, r := range []holdfast.Residence{holdfast.Resident, holdfast.Wrapped} {
		const callers = 16
		errs := make([]error, callers)
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() { _, errs[i] = f.service.CreateKey(t.Context(), request("same "+r.String(), holdfast.ES256, r)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				wantCode(t, "loser", err, holdfast.ErrExists)
			}
		}
		if won != 1 {
			t.Errorf("%s: %d won", r, won)
		}
	}
	if refs := f.refs(t); len(refs) != 1 {
		t.Errorf("on the device: %v", refs)
	}
}

func TestBatch(t *testing.T) {
	f := newFixture(t)
	k := f.create(t, "a", holdfast.ES256, holdfast.Wrapped)
	digests := make([][]byte, 100)
	for i := range digests {
		digests[i] = holdfast.ES256.Digest([]byte{byte(i)})
	}
	digests[50] = []byte("no digest")
	results, err := f.service.SignBatch(t.Context(), "a", digests)
	if err != nil || len(results) != len(digests) {
		t.Fatal(len(results), err)
	}
	for i, r := range results {
		if i == 50 {
			wantCode(t, "the wrong one", r.Err, holdfast.ErrInvalid)
		} else if err := errors.Join(r.Err, holdfast.Verify(k.Algorithm, k.Public, digests[i],
			r.Signature)); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, n := range []int{0, MaxBatch + 1} {
		_, err := f.service.SignBatch(t.Context(), "a", make([][]byte, n))
		wantCode(t, fmt.Sprint(n, " digests"), err, holdfast.ErrInvalid)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.service.SignBatch(ctx, "a", digests); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestListing(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"c", "a", "b"} {
		f.create(t, name, holdfast.ES256, holdfast.Wrapped)
	}
	var names []string
	for o := (ListOptions{Limit: 2}); ; {
		keys, next, err := f.service.Keys(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			names = append(names, k.Name)
		}
		if o.After = next; next == "" {
			break
		}
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Error(names)
	}
	keys, next, err := f.service.Keys(t.Context(), ListOptions{Backend: "soft", Limit: 3})
	if err != nil || len(keys) != 3 || next != "" {
		t.Error(len(keys), next, err)
	}
	if keys, _, err := f.service.Keys(t.Context(), ListOptions{Backend: "hard"}); err != nil || len(keys) != 0 {
		t.Error(len(keys), err)
	}
}

func TestAdoption(t *testing.T) {
	f := newFixture(t)
	d := f.service.backends["soft"].device.Load()
	foreign, err := d.Generate(t.Context(), holdfast.KeySpec{Label: "foreign", Algorithm: holdfast.ES384})
	if err != nil {
		t.Fatal(err)
	}
	r := AdoptKeyRequest{Name: "mine", Backend: "soft", Ref: foreign.Ref(), Purpose: PurposeAssertion,
		Algorithm: holdfast.ES256}
	_, err = f.service.AdoptKey(t.Context(), r)
	wantCode(t, "another algorithm", err, holdfast.ErrInvalid)
	r.Algorithm, r.Purpose = "", PurposeKeyAgreement
	_, err = f.service.AdoptKey(t.Context(), r)
	wantCode(t, "a purpose that does not fit", err, holdfast.ErrInvalid)
	r.Purpose, r.Ref = PurposeAssertion, "soft:00"
	_, err = f.service.AdoptKey(t.Context(), r)
	wantCode(t, "no such key", err, holdfast.ErrNotFound)
	r.Ref = foreign.Ref()
	k, err := f.service.AdoptKey(t.Context(), r)
	if err != nil || !k.Adopted || k.Algorithm != holdfast.ES384 || k.Residence != holdfast.Resident {
		t.Fatalf("%+v, %v", k, err)
	}
	r.Name = "mine too"
	_, err = f.service.AdoptKey(t.Context(), r)
	wantCode(t, "adopted twice", err, holdfast.ErrExists)
	if !strings.Contains(err.Error(), `"mine"`) {
		t.Errorf("the error does not say whose it is: %v", err)
	}
	f.restart(t)
	digest := holdfast.ES384.Digest([]byte("x"))
	signature, err := f.service.Sign(t.Context(), "mine", digest)
	if err != nil || holdfast.Verify(holdfast.ES384, k.Public, digest, signature) != nil {
		t.Error(err)
	}
}

func TestDestruction(t *testing.T) {
	f := newFixture(t)
	for _, r := range []holdfast.Residence{holdfast.Resident, holdfast.Wrapped} {
		k := f.create(t, "a", holdfast.ES256, r)
		if err := f.service.DestroyKey(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
		wantCode(t, "signing with a destroyed key", err, holdfast.ErrNotFound)
		wantCode(t, "destroying it again", f.service.DestroyKey(t.Context(), "a"), holdfast.ErrNotFound)
		if stone, err := f.store.Tombstone(t.Context(), k.ID); err != nil || stone.Name != "a" || stone.Ref != k.Ref {
			t.Errorf("%+v, %v", stone, err)
		}
	}
	if refs := f.refs(t); len(refs) != 0 {
		t.Errorf("left on the device: %v", refs)
	}
	f.create(t, "a", holdfast.EdDSA, holdfast.Resident) // the name is free
}

func TestNothingWorksAfterClose(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	if err := f.service.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
	wantCode(t, "sign", err, holdfast.ErrUnavailable)
	_, err = f.service.CreateKey(t.Context(), request("b", holdfast.ES256, holdfast.Resident))
	wantCode(t, "create", err, holdfast.ErrUnavailable)
	if err := f.service.Close(); err != nil {
		t.Error("closing twice: ", err)
	}
}

func TestBadConfigurations(t *testing.T) {
	f := newFixture(t)
	ok := BackendConfig{Name: "a", Open: f.open}
	for what, cfg := range map[string]Config{
		"no store":  {},
		"no name":   {Store: f.store, Backends: []BackendConfig{{Open: f.open}}},
		"no opener": {Store: f.store, Backends: []BackendConfig{{Name: "a"}}},
		"same name": {Store: f.store, Backends: []BackendConfig{ok, ok}},
	} {
		_, err := New(t.Context(), cfg)
		wantCode(t, what, err, holdfast.ErrInvalid)
	}
}

func TestSealing(t *testing.T) {
	f := newFixture(t)
	auth := holdfast.NewSecret([]byte("auth"))
	blob, err := f.service.Seal(t.Context(), "soft", holdfast.NewSecret([]byte("wallet key")),
		&holdfast.SealOptions{AuthValue: auth})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := f.service.Unseal(t.Context(), "soft", blob, &holdfast.UnsealOptions{AuthValue: auth})
	if err != nil || string(secret.Bytes()) != "wallet key" {
		t.Error(err)
	}
	_, err = f.service.Unseal(t.Context(), "soft", blob, nil)
	wantCode(t, "without the authValue", err, holdfast.ErrIntegrity)
	_, err = f.service.Seal(t.Context(), "hard", secret, nil)
	wantCode(t, "unknown backend", err, holdfast.ErrNotFound)
}
