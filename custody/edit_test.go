package custody

import (
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"holdfast"
	"holdfast/custody/store"
	"holdfast/internal/softkey"
)

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// reopenRecord reads a record while the service is stopped.
func (f *fixture) reopenRecord(t *testing.T, name string) *store.Key {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(f.dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Key(t.Context(), name)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return k
}

// editBlob changes one bit of a wrapped key's blob while the service is stopped.
func (f *fixture) editBlob(t *testing.T, id store.ID) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(f.dir, "state", store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	if err := db.QueryRow("SELECT blob FROM keys WHERE id = ?", id[:]).Scan(&blob); err != nil {
		t.Fatal(err)
	}
	blob[len(blob)/2] ^= 4
	_, err = db.Exec("UPDATE keys SET blob = ? WHERE id = ?", blob, id[:])
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// swapKey returns a software device's file with another key of the same algorithm under ref.
func swapKey(t *testing.T, file []byte, ref holdfast.Ref) []byte {
	t.Helper()
	other := filepath.Join(t.TempDir(), "other.json")
	b, err := softkey.Open(t.Context(), softkey.Config{File: other})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256}); err != nil {
		t.Fatal(err)
	}
	type device struct {
		Keys map[string]json.RawMessage `json:"keys"`
		Root []byte                     `json:"root"`
	}
	var ours, theirs device
	if err := errors.Join(json.Unmarshal(file, &ours), json.Unmarshal(readFile(t, other), &theirs)); err != nil {
		t.Fatal(err)
	}
	if _, ok := ours.Keys[string(ref)]; !ok {
		t.Fatalf("%s is not on the device", ref)
	}
	for _, material := range theirs.Keys {
		ours.Keys[string(ref)] = material
	}
	text, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
