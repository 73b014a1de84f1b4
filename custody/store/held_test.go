package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"holdfast"
	"holdfast/custody/store"
)

func TestPINMemoryAndSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := s.LoadPIN(t.Context(), "piv:serial=1"); err != nil || state != holdfast.PINAccepted {
		t.Error(state, err)
	}
	for _, state := range []holdfast.PINState{holdfast.PINTrying, holdfast.PINAccepted, holdfast.PINTrying,
		holdfast.PINRefused} {
		if err := s.StorePIN(t.Context(), "piv:serial=1", state); err != nil {
			t.Fatal(err)
		}
	}
	if _, there, err := s.LoadSecret(t.Context(), "management key"); err != nil || there {
		t.Error(there, err)
	}
	for _, value := range []string{"one", "two"} {
		if err := s.StoreSecret(t.Context(), "management key", holdfast.NewSecret([]byte(value))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if state, err := s.LoadPIN(t.Context(), "piv:serial=1"); err != nil || state != holdfast.PINRefused {
		t.Error(state, err)
	}
	if secret, there, err := s.LoadSecret(t.Context(), "management key"); err != nil || !there ||
		string(secret.Bytes()) != "two" {
		t.Error(there, err)
	}
	for range 2 {
		if err := s.DeleteSecret(t.Context(), "management key"); err != nil {
			t.Error(err)
		}
	}
	if _, there, err := s.LoadSecret(t.Context(), "management key"); err != nil || there {
		t.Error(there, err)
	}
}

func TestDIDs(t *testing.T) {
	s := fresh(t)
	control, next := resident("control"), resident("next")
	d := store.DID{
		DID: "did:webvh:Q:example.org", Method: "webvh", Log: "{}\n", Document: `{"id":"did:webvh:Q:example.org"}`,
		URL: "https://example.org/.well-known/did.jsonl", Created: created(), Updated: created(),
		Keys: []store.DIDKey{{KeyID: control.ID, Role: "control", Fragment: "key-1"}, {KeyID: next.ID, Role: "next"}},
	}
	if err := s.PutDID(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := s.PutDID(t.Context(), d); !errors.Is(err, holdfast.ErrExists) {
		t.Errorf("put twice: %v", err)
	}
	got, err := s.DID(t.Context(), d.DID)
	d.Version = 1
	if err != nil || fmt.Sprint(got) != fmt.Sprint(d) {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Log += "{}\n"
	got.Updated = created().Add(time.Hour)
	got.Keys = got.Keys[1:]
	if err := s.PutDID(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if err := s.PutDID(t.Context(), got); !errors.Is(err, holdfast.ErrState) {
		t.Errorf("the second of two changes of one version: %v", err)
	}
	again, err := s.DID(t.Context(), d.DID)
	if err != nil || again.Version != 2 || again.Log != got.Log || len(again.Keys) != 1 ||
		!again.Created.Equal(created()) || !again.Updated.Equal(got.Updated) {
		t.Fatalf("%+v, %v", again, err)
	}
	if dids, err := s.DIDsOfKey(t.Context(), next.ID); err != nil || len(dids) != 1 || dids[0] != d.DID {
		t.Error(dids, err)
	}
	if dids, err := s.DIDsOfKey(t.Context(), control.ID); err != nil || len(dids) != 0 {
		t.Error(dids, err)
	}
	if byURL, err := s.DIDByURL(t.Context(), d.URL); err != nil || byURL.DID != d.DID {
		t.Error(byURL, err)
	}
	if _, err := s.DIDByURL(t.Context(), ""); !errors.Is(err, holdfast.ErrNotFound) {
		t.Errorf("the DID without a place: %v", err)
	}
	rival := store.DID{DID: "did:webvh:R:example.org", Method: "webvh", URL: d.URL, Created: created(),
		Updated: created()}
	if err := s.PutDID(t.Context(), rival); !errors.Is(err, holdfast.ErrExists) {
		t.Errorf("two DIDs in one place: %v", err)
	}
	second := store.DID{DID: "did:key:z6Mk", Method: "key", Created: created(), Updated: created()}
	if err := s.PutDID(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if n, err := s.CountDIDs(t.Context()); err != nil || n != 2 {
		t.Error(n, err)
	}
	list, err := s.DIDs(t.Context(), "", 1)
	if err != nil || len(list) != 1 || list[0].DID != second.DID {
		t.Fatalf("%+v, %v", list, err)
	}
	list, err = s.DIDs(t.Context(), list[0].DID, 10)
	if err != nil || len(list) != 1 || list[0].DID != d.DID {
		t.Fatalf("%+v, %v", list, err)
	}
}
