package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast"
)

// limit lets the database grow to so many pages, and fails beyond as it does on a full disk (SQLITE_FULL).
func limit(t *testing.T, s *Store, pages int) {
	t.Helper()
	err := s.writer.do(t.Context(), "limit", func(tx *transaction) error {
		var n int
		return tx.scan(fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil, &n)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk fills a store from several writers at once. What was acknowledged is there, what was refused is not, and
// the store goes on when there is room again.
func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	limit(t, s, 60)
	const writers, each = 8, 40
	errs := make(map[string]error)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprint("key ", w, " ", i)
				err := s.AddKey(t.Context(), fullKey(name, w%2 == 0))
				mu.Lock()
				errs[name] = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	limit(t, s, 1<<20)
	if err := s.AddKey(t.Context(), fullKey("after", true)); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	refused := 0
	for name, err := range errs {
		_, readErr := s.Key(t.Context(), name)
		if err == nil && readErr != nil {
			t.Errorf("%s was acknowledged: %v", name, readErr)
		}
		if err != nil {
			refused++
			if !errors.Is(err, holdfast.ErrUnavailable) || !errors.Is(readErr, holdfast.ErrNotFound) {
				t.Errorf("%s was refused with %v, and is read with %v", name, err, readErr)
			}
		}
	}
	if refused == 0 || refused == len(errs) {
		t.Errorf("%d of %d were refused", refused, len(errs))
	}
	if n := s.Count("hsm"); n != len(errs)-refused+1 {
		t.Errorf("%d keys are counted", n)
	}
}

func fullKey(name string, wrapped bool) *Key {
	k := &Key{
		ID: NewID(), Name: name, Backend: "hsm", Ref: holdfast.Ref("pkcs11:object=" + name), Algorithm: holdfast.ES256, Purpose: "assertion",
		Residence: holdfast.Resident, Public: []byte(strings.Repeat("p", 2000)), State: StateActive,
		Created: time.Unix(0, 0),
	}
	if wrapped {
		k.Residence, k.Blob = holdfast.Wrapped, []byte("blob")
	}
	return k
}

// TestOneBadWriteLeavesTheGroupAlone puts a write that breaks a constraint among others of its transaction.
func TestOneBadWriteLeavesTheGroupAlone(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	group := make([]*write, 0, 4)
	add := func(one bool, statements ...string) *write {
		w := &write{ctx: t.Context(), one: one, result: make(chan error, 1), apply: func(tx *transaction) error {
			for _, statement := range statements {
				if err := tx.exec(statement); err != nil {
					return err
				}
			}
			return nil
		}}
		group = append(group, w)
		return w
	}
	first := add(false, `INSERT INTO secrets VALUES ('first', x'01')`, `INSERT INTO secrets VALUES ('second', x'02')`)
	bad := add(false, `INSERT INTO secrets VALUES ('third', x'03')`, `INSERT INTO pin_memory VALUES ('x', 9)`)
	badOne := add(true, `INSERT INTO pin_memory VALUES ('y', 9)`)
	last := add(true, `INSERT INTO secrets VALUES ('fourth', x'04')`)
	done := make(chan struct{})
	err = s.writer.do(t.Context(), "group", func(tx *transaction) error {
		// Inside the writer's goroutine, where nothing else writes: this transaction is given up for the group's own.
		if err := tx.exec("ROLLBACK"); err != nil {
			return err
		}
		tx.w.commit(group)
		close(done)
		return holdfast.ErrState
	})
	<-done
	if err == nil {
		t.Error("the transaction that was given up was acknowledged")
	}
	for w, want := range map[*write]bool{first: true, bad: false, badOne: false, last: true} {
		if err := <-w.result; (err == nil) != want {
			t.Errorf("got %v", err)
		}
	}
	for name, want := range map[string]bool{"first": true, "second": true, "third": false, "fourth": true} {
		if _, there, err := s.LoadSecret(t.Context(), name); err != nil || there != want {
			t.Errorf("%s: %v, %v", name, there, err)
		}
	}
}
