package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast"
	"holdfast/custody/store"
)

// created is when the keys of these tests were made.
func created() time.Time { return time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC) }

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func fresh(t testing.TB) *store.Store {
	return open(t, filepath.Join(t.TempDir(), "state"))
}

func resident(name string) *store.Key {
	return &store.Key{
		ID: store.NewID(), Name: name, Backend: "hsm", Ref: holdfast.Ref("pkcs11:object=" + name),
		Algorithm: holdfast.ES256, Purpose: "assertion",
		Residence: holdfast.Resident, Public: []byte("public " + name), Place: "9c", PIN: holdfast.PINAlways,
		Touch:   holdfast.TouchCached,
		Adopted: true, State: store.StateActive, Created: created(),
	}
}

func wrapped(name string) *store.Key {
	k := resident(name)
	k.Residence, k.Blob, k.Place = holdfast.Wrapped, []byte("blob "+name), ""
	return k
}

func TestKeySurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	secret := &store.Key{
		ID: store.NewID(), Name: "kek", Backend: "tpm", Ref: "tpm:1", Algorithm: holdfast.A256GCM,
		Purpose:   "wallet-kek",
		Residence: holdfast.Resident, State: store.StateActive, Created: created(),
	}
	want := []*store.Key{resident("a"), wrapped("b"), secret}
	for _, k := range want {
		if err := s.AddKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Key(t.Context(), "a"); holdfast.CodeOf(err) != holdfast.ErrUnavailable {
		t.Errorf("reading a closed store: %v", err)
	}
	if err := s.AddKey(t.Context(), resident("late")); holdfast.CodeOf(err) != holdfast.ErrUnavailable {
		t.Errorf("writing to a closed store: %v", err)
	}
	s = open(t, path)
	for _, k := range want {
		got, err := s.Key(t.Context(), k.Name)
		if err != nil {
			t.Fatal(err)
		}
		expected := *k
		expected.Version = 1
		if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", expected) || !got.Created.Equal(created()) {
			t.Errorf("got  %+v\nwant %+v", *got, expected)
		}
	}
	if s.Count("hsm") != 2 || s.Count("tpm") != 1 || s.Count("none") != 0 || len(s.Backends()) != 2 {
		t.Errorf("counts: %d %d %d, backends %v", s.Count("hsm"), s.Count("tpm"), s.Count("none"), s.Backends())
	}
}

func TestNamesAndRefsAreTakenOnce(t *testing.T) {
	s := fresh(t)
	first := resident("a")
	if err := s.AddKey(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	intent := store.Intent{ID: store.NewID(), Name: "b", Backend: "hsm", Ref: "pkcs11:object=b", Created: created()}
	if err := s.BeginCreate(t.Context(), intent); err != nil {
		t.Fatal(err)
	}
	sameRef := resident("c")
	sameRef.Ref = first.Ref
	planned := resident("d")
	planned.Ref = intent.Ref
	for what, k := range map[string]*store.Key{"name of a key": resident("a"), "ref of a key": sameRef,
		"name of an intent": resident("b"), "ref of an intent": planned} {
		if err := s.AddKey(t.Context(), k); holdfast.CodeOf(err) != holdfast.ErrExists {
			t.Errorf("key with the %s: %v", what, err)
		}
		i := store.Intent{ID: store.NewID(), Name: k.Name, Backend: k.Backend, Ref: k.Ref, Created: created()}
		if err := s.BeginCreate(t.Context(), i); holdfast.CodeOf(err) != holdfast.ErrExists {
			t.Errorf("intent with the %s: %v", what, err)
		}
	}
	other := resident("e")
	other.Backend, other.Ref = "tpm", first.Ref // refs belong to a backend
	if err := s.AddKey(t.Context(), other); err != nil {
		t.Error(err)
	}
	mine := resident("b")
	mine.ID = intent.ID
	if err := s.AddKey(t.Context(), mine); err != nil {
		t.Errorf("the key of the intent: %v", err)
	}
	if intents, err := s.Intents(t.Context(), "hsm"); err != nil || len(intents) != 0 {
		t.Errorf("intents after the key was added: %v, %v", intents, err)
	}
	if n := s.Count("hsm"); n != 2 {
		t.Errorf("%d keys", n)
	}
}

func TestManyWritersOneWins(t *testing.T) {
	s := fresh(t)
	const writers = 32
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			k := resident("same")
			k.Ref = holdfast.Ref(fmt.Sprint("pkcs11:id=", i))
			errs[i] = s.AddKey(t.Context(), k)
		})
		wg.Go(func() {
			if err := s.AddKey(t.Context(), resident(fmt.Sprint("other ", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if holdfast.CodeOf(err) != holdfast.ErrExists {
			t.Error(err)
		}
	}
	if won != 1 || s.Count("hsm") != writers+1 {
		t.Errorf("%d of %d won, %d keys", won, writers, s.Count("hsm"))
	}
}

func TestPages(t *testing.T) {
	s := fresh(t)
	names := []string{"Z", "a", "b", "c", "ä"} // in the order of their bytes
	for i, n := range []int{3, 0, 4, 2, 1} {
		k := wrapped(names[n])
		if i%2 == 1 {
			k.Backend = "tpm"
		}
		if err := s.AddKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	list := func(backend, after string, limit int) string {
		t.Helper()
		keys, err := s.Keys(t.Context(), backend, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, k := range keys {
			got.WriteString(k.Name)
		}
		return got.String()
	}
	for _, c := range []struct {
		backend, after string
		limit          int
		want           string
	}{
		{"", "", 10, "Zabcä"}, {"", "", 2, "Za"}, {"", "a", 2, "bc"}, {"", "ä", 2, ""}, {"", "aa", 1, "b"},
		{"hsm", "", 10, "acä"}, {"tpm", "", 1, "Z"}, {"tpm", "Z", 9, "b"}, {"x", "", 10, ""},
	} {
		if got := list(c.backend, c.after, c.limit); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestDestroyLeavesATombstone(t *testing.T) {
	s := fresh(t)
	k := resident("a")
	if err := s.AddKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	for range 2 { // beginning again is no error
		if err := s.BeginDestroy(t.Context(), k.ID, created()); err != nil {
			t.Fatal(err)
		}
	}
	marked, err := s.Key(t.Context(), "a")
	if err != nil || !marked.Destroying || marked.Version != 2 {
		t.Fatalf("%+v, %v", marked, err)
	}
	intents, err := s.Intents(t.Context(), "hsm")
	if err != nil || len(intents) != 1 || intents[0].Act != store.ActDestroy || intents[0].ID != k.ID ||
		intents[0].Ref != k.Ref {
		t.Fatalf("%+v, %v", intents, err)
	}
	if err := s.AbortDestroy(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	if back, err := s.Key(t.Context(), "a"); err != nil || back.Destroying {
		t.Fatalf("%+v, %v", back, err)
	}
	if has, err := s.HasIntent(t.Context(), k.ID); err != nil || has {
		t.Fatal(has, err)
	}
	if err := s.BeginDestroy(t.Context(), k.ID, created()); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishDestroy(t.Context(), k.ID, created().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishDestroy(t.Context(), k.ID, created()); holdfast.CodeOf(err) != holdfast.ErrNotFound {
		t.Errorf("destroyed twice: %v", err)
	}
	if err := s.BeginDestroy(t.Context(), k.ID, created()); holdfast.CodeOf(err) != holdfast.ErrNotFound {
		t.Errorf("begun after the end: %v", err)
	}
	again := resident("a") // the name and the ref are free
	if err := s.AddKey(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishDestroy(t.Context(), again.ID, created().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	stones, err := s.Tombstones(t.Context(), "a")
	if err != nil || len(stones) != 2 || stones[0].ID != k.ID || stones[1].ID != again.ID {
		t.Fatalf("%+v, %v", stones, err)
	}
	stone, err := s.Tombstone(t.Context(), k.ID)
	if err != nil || stone.Name != "a" || stone.Ref != k.Ref || !bytes.Equal(stone.Public, k.Public) ||
		!stone.Destroyed.Equal(created().Add(time.Hour)) || !stone.Created.Equal(created()) {
		t.Errorf("%+v, %v", stone, err)
	}
	if byRef, err := s.TombstonesByRef(t.Context(), "hsm", k.Ref); err != nil || len(byRef) != 2 {
		t.Errorf("%+v, %v", byRef, err)
	}
	if s.Count("hsm") != 0 || len(s.Backends()) != 0 {
		t.Errorf("%d keys of %v", s.Count("hsm"), s.Backends())
	}
}

func TestNotFound(t *testing.T) {
	s := fresh(t)
	_, byName := s.Key(t.Context(), "a")
	_, byRef := s.KeyByRef(t.Context(), "hsm", "pkcs11:x")
	_, byID := s.KeyByID(t.Context(), store.NewID())
	_, stone := s.Tombstone(t.Context(), store.NewID())
	_, did := s.DID(t.Context(), "did:key:x")
	for _, err := range []error{byName, byRef, byID, stone, did} {
		if holdfast.CodeOf(err) != holdfast.ErrNotFound {
			t.Error(err)
		}
	}
}

func TestCanceledBeforeItBegan(t *testing.T) {
	s := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.AddKey(ctx, resident("a")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := s.Key(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := s.Key(t.Context(), "a"); holdfast.CodeOf(err) != holdfast.ErrNotFound {
		t.Error(err)
	}
	if _, err := store.Open(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFilesOfOthersAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, store.FileName)
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), dir); holdfast.CodeOf(err) != holdfast.ErrBusy {
		t.Errorf("opened twice: %v", err)
	}
	for _, name := range []string{"", "/holdfast.db", "/holdfast.db-wal", "/holdfast.db-shm", "/holdfast.db.lock"} {
		if info, err := os.Stat(dir + name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, spoil, mend func() error) {
		t.Helper()
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), dir); holdfast.CodeOf(err) != holdfast.ErrInvalid {
			t.Errorf("%s: %v", what, err)
		}
		if err := mend(); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(path string, mode os.FileMode) func() error { return func() error { return os.Chmod(path, mode) } }
	chown := func(path string, uid int) func() error { return func() error { return os.Chown(path, uid, -1) } }
	refused("folder open to others", chmod(dir, 0o755), chmod(dir, 0o700))
	refused("file open to the group", chmod(path, 0o640), chmod(path, 0o600))
	if os.Geteuid() == 0 {
		refused("file of another user", chown(path, 12345), chown(path, 0))
	}
	refused("link", func() error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) },
		func() error { return os.Rename(path+"2", path) })
	open(t, dir)
}

func TestFilesThatAreNoStore(t *testing.T) {
	folder := func() (dir, file string) {
		dir = filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir, filepath.Join(dir, store.FileName)
	}
	run := func(file string, statements ...string) {
		t.Helper()
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range statements {
			if _, err := db.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(db.Close(), os.Chmod(file, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	text, file := folder()
	if err := os.WriteFile(file, bytes.Repeat([]byte("this is not a database\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), text); holdfast.CodeOf(err) != holdfast.ErrIntegrity {
		t.Errorf("text: %v", err)
	}
	other, file := folder()
	run(file, "CREATE TABLE music (title TEXT)")
	if _, err := store.Open(t.Context(), other); holdfast.CodeOf(err) != holdfast.ErrInvalid {
		t.Errorf("somebody else's database: %v", err)
	}
	newer, file := folder()
	s, err := store.Open(t.Context(), newer)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	run(file, "PRAGMA user_version = 1000")
	if _, err := store.Open(t.Context(), newer); holdfast.CodeOf(err) != holdfast.ErrInvalid {
		t.Errorf("a newer schema: %v", err)
	}
	if _, err := store.Open(t.Context(), file); holdfast.CodeOf(err) != holdfast.ErrInvalid {
		t.Errorf("a file for a folder: %v", err)
	}
}

func TestNamesWithSpecialCharactersInThePath(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "100% sure? #1;&="))
	if err := s.AddKey(t.Context(), resident("a")); err != nil {
		t.Error(err)
	}
}
