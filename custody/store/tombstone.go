package store

import (
	"context"
	"database/sql"
	"time"

	"holdfast"
)

// Tombstone is what is left of a destroyed key. It is kept for ever under the key's identifier.
type Tombstone struct {
	ID        ID
	Name      string // what the key was called; another key may be called so now
	Backend   string
	Ref       holdfast.Ref
	Algorithm holdfast.Algorithm
	Purpose   string
	Residence holdfast.Residence
	Public    []byte // SubjectPublicKeyInfo in DER; empty for a secret key
	Created   time.Time
	Destroyed time.Time
}

const (
	stoneColumns = `id, name, backend, ref, algorithm, purpose, residence, public, created, destroyed`

	queryStonesByName = `SELECT ` + stoneColumns + ` FROM tombstones WHERE name = ? ORDER BY destroyed`
	queryStonesByRef  = `SELECT ` + stoneColumns + ` FROM tombstones WHERE backend = ? AND ref = ? ORDER BY destroyed`
	queryStoneByID    = `SELECT ` + stoneColumns + ` FROM tombstones WHERE id = ?`
)

// Tombstones returns the tombstones of all keys that were ever called name, oldest first.
func (s *Store) Tombstones(ctx context.Context, name string) ([]Tombstone, error) {
	return s.tombstones(ctx, queryStonesByName, name)
}

// TombstonesByRef returns the tombstones of all keys that backend ever called ref, oldest first.
func (s *Store) TombstonesByRef(ctx context.Context, backend string, ref holdfast.Ref) ([]Tombstone, error) {
	return s.tombstones(ctx, queryStonesByRef, backend, string(ref))
}

// Tombstone returns the tombstone of one key, ErrNotFound if it has none.
func (s *Store) Tombstone(ctx context.Context, id ID) (Tombstone, error) {
	stones, err := s.tombstones(ctx, queryStoneByID, id[:])
	if err == nil && len(stones) == 0 {
		err = holdfast.Errorf(holdfast.ErrNotFound, "", "no key with identifier %s was destroyed", id)
	}
	if err != nil {
		return Tombstone{}, err
	}
	return stones[0], nil
}

func (s *Store) tombstones(ctx context.Context, query string, args ...any) ([]Tombstone, error) {
	var stones []Tombstone
	err := s.query(ctx, "read tombstones", query, func(rows *sql.Rows) error {
		var t Tombstone
		var id []byte
		var created, destroyed int64
		err := rows.Scan(&id, &t.Name, &t.Backend, &t.Ref, &t.Algorithm, &t.Purpose, &t.Residence, &t.Public, &created,
			&destroyed)
		copy(t.ID[:], id)
		t.Created, t.Destroyed = time.Unix(0, created).UTC(), time.Unix(0, destroyed).UTC()
		stones = append(stones, t)
		return err
	}, args...)
	return stones, err
}
