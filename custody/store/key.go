package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"holdfast"
)

// ID names a key for ever: 16 random bytes. Names and refs are used again after a key was destroyed, identifiers are not.
type ID [16]byte

// NewID returns a new random identifier.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// String returns 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// StateActive is the one lifecycle state (SP 800-57) that keys have so far.
const StateActive = "active"

// Key is a key record.
type Key struct {
	ID        ID
	Name      string // unique among the keys that exist
	Backend   string // the backend's name in the configuration
	Ref       holdfast.Ref
	Algorithm holdfast.Algorithm
	Purpose   string
	Residence holdfast.Residence // Resident or Wrapped
	Public    []byte             // SubjectPublicKeyInfo in DER; empty for a secret key
	Blob      []byte             // what holdfast.Loader.Load takes; nil for a resident key
	Place     string
	PIN       holdfast.PINPolicy
	Touch     holdfast.TouchPolicy
	Adopted   bool   // it was on the device before Holdfast knew it
	State     string // StateActive
	Created   time.Time
	Version   int64 // 1 when added, one more at every change

	// Destroying is set from the moment a destruction was begun; it is finished when the device is there.
	Destroying bool
}

// keyColumns are the columns of keys in the order scanKey reads them.
const keyColumns = `id, name, backend, ref, algorithm, purpose, residence, public, blob, place, pin, touch, adopted,
	state, destroying, created, version`

const (
	queryKeyByName = `SELECT ` + keyColumns + ` FROM keys WHERE name = ?`
	queryKeyByRef  = `SELECT ` + keyColumns + ` FROM keys WHERE backend = ? AND ref = ?`
	queryKeyByID   = `SELECT ` + keyColumns + ` FROM keys WHERE id = ?`
	queryKeys      = `SELECT ` + keyColumns + ` FROM keys WHERE name > ? ORDER BY name LIMIT ?`
	queryKeysOf    = `SELECT ` + keyColumns + ` FROM keys WHERE backend = ? AND name > ? ORDER BY name LIMIT ?`
	queryCounts    = `SELECT backend, count(*) FROM keys GROUP BY backend`
)

// Key returns the record of the key called name, ErrNotFound if there is none.
func (s *Store) Key(ctx context.Context, name string) (*Key, error) {
	key, err := s.oneKey(ctx, queryKeyByName, name)
	if key == nil && err == nil {
		err = holdfast.Errorf(holdfast.ErrNotFound, "", "there is no key called %q", name)
	}
	return key, err
}

// KeyByRef returns the record of the key that backend calls ref, ErrNotFound if there is none.
func (s *Store) KeyByRef(ctx context.Context, backend string, ref holdfast.Ref) (*Key, error) {
	key, err := s.oneKey(ctx, queryKeyByRef, backend, string(ref))
	if key == nil && err == nil {
		err = holdfast.Errorf(holdfast.ErrNotFound, "", "no key of %s is known as %s", backend, ref)
	}
	return key, err
}

// KeyByID returns the record with that identifier, ErrNotFound if there is none.
func (s *Store) KeyByID(ctx context.Context, id ID) (*Key, error) {
	key, err := s.oneKey(ctx, queryKeyByID, id[:])
	if key == nil && err == nil {
		err = holdfast.Errorf(holdfast.ErrNotFound, "", "there is no key with identifier %s", id)
	}
	return key, err
}

func (s *Store) oneKey(ctx context.Context, query string, args ...any) (*Key, error) {
	var key *Key
	err := s.query(ctx, "read key", query, func(rows *sql.Rows) (err error) {
		key, err = scanKey(rows)
		return err
	}, args...)
	return key, err
}

// Keys returns up to limit records in the order of their names, those after the name after, of one backend or, when
// backend is empty, of all.
func (s *Store) Keys(ctx context.Context, backend, after string, limit int) ([]*Key, error) {
	query, args := queryKeys, []any{after, limit}
	if backend != "" {
		query, args = queryKeysOf, []any{backend, after, limit}
	}
	var keys []*Key
	err := s.query(ctx, "list keys", query, func(rows *sql.Rows) error {
		key, err := scanKey(rows)
		keys = append(keys, key)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// Count returns how many records the backend has, from memory.
func (s *Store) Count(backend string) int {
	if n, ok := s.counts.Load(backend); ok {
		return int(n.(*atomic.Int64).Load())
	}
	return 0
}

// Backends returns the names of the backends that have records, from memory, in no particular order.
func (s *Store) Backends() []string {
	var names []string
	s.counts.Range(func(name, n any) bool {
		if n.(*atomic.Int64).Load() > 0 {
			names = append(names, name.(string))
		}
		return true
	})
	return names
}

func (s *Store) count(backend string, change int64) {
	n, _ := s.counts.LoadOrStore(backend, new(atomic.Int64))
	n.(*atomic.Int64).Add(change)
}

// loadCounts counts once, over an index, when the store is opened.
func (s *Store) loadCounts(ctx context.Context) error {
	return s.query(ctx, "open store", queryCounts, func(rows *sql.Rows) error {
		var backend string
		var n int64
		if err := rows.Scan(&backend, &n); err != nil {
			return err
		}
		s.count(backend, n)
		return nil
	})
}

func scanKey(rows *sql.Rows) (*Key, error) {
	var k Key
	var id []byte
	var created int64
	err := rows.Scan(&id, &k.Name, &k.Backend, &k.Ref, &k.Algorithm, &k.Purpose, &k.Residence, &k.Public, &k.Blob,
		&k.Place,
		&k.PIN, &k.Touch, &k.Adopted, &k.State, &k.Destroying, &created, &k.Version)
	if err != nil {
		return nil, err
	}
	if copy(k.ID[:], id) != len(k.ID) {
		return nil, fmt.Errorf("a key's identifier has %d bytes", len(id))
	}
	k.Created = time.Unix(0, created).UTC()
	return &k, nil
}
