package custody

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast"
)

// createFor makes a key of a purpose.
func (f *fixture) createFor(t *testing.T, name string, a holdfast.Algorithm, p Purpose) Key {
	t.Helper()
	r := request(name, a, holdfast.Resident)
	r.Purpose = p
	k, err := f.service.CreateKey(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPagesOfDIDs(t *testing.T) {
	f := newFixture(t)
	var want []string
	for i := range 5 {
		k := f.createFor(t, fmt.Sprint("k", i), holdfast.EdDSA, PurposeDIDAuth)
		d, err := f.service.CreateDID(t.Context(), CreateDIDRequest{Method: "key", Key: k.Name})
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Keys) != 1 || d.Keys[0] != (DIDKey{Role: RoleControl, Name: k.Name}) {
			t.Errorf("the keys of %s are %v", d.DID, d.Keys)
		}
		want = append(want, d.DID)
	}
	slices.Sort(want)
	for _, limit := range []int{0, 1, 2, 5, 6, MaxPage + 1} {
		var got []string
		after := ""
		for more := true; more; more = after != "" {
			page, next, err := f.service.DIDs(t.Context(), after, limit)
			if err != nil || limit > 0 && len(page) > limit {
				t.Fatalf("limit %d: %d DIDs, %v", limit, len(page), err)
			}
			for _, d := range page {
				got = append(got, d.DID)
			}
			after = next
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
	_, _, err := f.service.DIDs(t.Context(), "", -1)
	wantCode(t, "a page of -1", err, holdfast.ErrInvalid)
}

func TestDIDOfADestroyedKey(t *testing.T) {
	f := newFixture(t)
	k := f.createFor(t, "k", holdfast.EdDSA, PurposeDIDAuth)
	made, err := f.service.CreateDID(t.Context(), CreateDIDRequest{Method: "jwk", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if dids, err := f.service.DIDsOfKey(t.Context(), "k"); err != nil || !slices.Equal(dids, []string{made.DID}) {
		t.Errorf("the DIDs of the key: %v, %v", dids, err)
	}
	if err := f.service.DestroyKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	d, err := f.service.DID(t.Context(), made.DID)
	if err != nil || len(d.Keys) != 1 || d.Keys[0].Name != "["+k.ID.String()+"]" {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestKeysThatDoNotFitADID asks for did:webvh DIDs of keys that were made for something else. None leaves a DID behind.
func TestKeysThatDoNotFitADID(t *testing.T) {
	f := newFixture(t)
	f.createFor(t, "control", holdfast.EdDSA, PurposeDIDControl)
	f.createFor(t, "next", holdfast.EdDSA, PurposeDIDNext)
	f.createFor(t, "auth", holdfast.ES256, PurposeDIDAuth)
	f.createFor(t, "p256", holdfast.ES256, PurposeDIDControl)
	f.createFor(t, "kek", holdfast.A256GCM, PurposeWalletKEK)
	fits := CreateDIDRequest{Method: "webvh", Key: "control", NextKeys: []string{"next"}, Domain: "id.example.com",
		Authentication: []string{"auth"}}
	for name, test := range map[string]struct {
		change func(*CreateDIDRequest)
		code   holdfast.Code
		want   string
	}{
		"unknown method":      {func(r *CreateDIDRequest) { r.Method = "web" }, holdfast.ErrInvalid, "key, jwk or webvh"},
		"no such key":         {func(r *CreateDIDRequest) { r.Key = "none" }, holdfast.ErrNotFound, "none"},
		"control by P-256":    {func(r *CreateDIDRequest) { r.Key = "p256" }, holdfast.ErrInvalid, "EdDSA"},
		"control by another":  {func(r *CreateDIDRequest) { r.Key = "next" }, holdfast.ErrInvalid, "did-control"},
		"next is another":     {func(r *CreateDIDRequest) { r.NextKeys[0] = "control" }, holdfast.ErrInvalid, "did-next"},
		"next twice":          {func(r *CreateDIDRequest) { r.NextKeys = []string{"next", "next"} }, holdfast.ErrInvalid, "twice"},
		"another in document": {func(r *CreateDIDRequest) { r.Assertion = []string{"auth"} }, holdfast.ErrInvalid, "assertion"},
		"empty document":      {func(r *CreateDIDRequest) { r.Authentication = nil }, holdfast.ErrInvalid, "no keys"},
		"domain for did:key":  {func(r *CreateDIDRequest) { r.Method = "key" }, holdfast.ErrInvalid, "webvh"},
	} {
		r := fits
		r.NextKeys = slices.Clone(fits.NextKeys)
		test.change(&r)
		_, err := f.service.CreateDID(t.Context(), r)
		wantCode(t, name, err, test.code)
		if err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := f.service.CountDIDs(t.Context()); err != nil || n != 0 {
		t.Errorf("%d DIDs were left, %v", n, err)
	}
	_, err := f.service.CreateDID(t.Context(), CreateDIDRequest{Method: "key", Key: "kek"})
	wantCode(t, "a DID of a secret key", err, holdfast.ErrInvalid)
	d, err := f.service.CreateDID(t.Context(), fits)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.service.DIDByURL(t.Context(), d.URL); err != nil || got.DID != d.DID || got.Log != d.Log {
		t.Errorf("by URL: %+v, %v", got, err)
	}
}
