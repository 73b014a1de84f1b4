package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"holdfast"
)

// Act says what an intent is about to do.
type Act string

// The acts.
const (
	ActCreate  Act = "create"
	ActDestroy Act = "destroy"
)

// Intent says what is about to be done to a device. It is written before, and removed together with the writing of the
// outcome, so that whoever finds one knows that the process died in between.
type Intent struct {
	ID      ID // the key's
	Act     Act
	Name    string
	Backend string
	Ref     holdfast.Ref
	Created time.Time
}

const (
	queryIntent  = `SELECT 1 FROM intents WHERE id = ?`
	queryIntents = `SELECT id, act, name, backend, ref, created FROM intents WHERE backend = ? ORDER BY created`

	insertKey    = `INSERT INTO keys (` + keyColumns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,0,?,1)`
	insertCreate = `INSERT INTO intents (id, act, name, backend, ref, created) VALUES (?, 'create', ?, ?, ?, ?)`
	// Whoever has the name or ref: 0 a key of that name, 1 a key of that ref, 2 an intent of another key with either.
	queryTaken = `SELECT 0, name FROM keys WHERE name = ?1
		UNION ALL SELECT 1, name FROM keys WHERE backend = ?2 AND ref = ?3
		UNION ALL SELECT 2, name FROM intents WHERE id <> ?4 AND name = ?1
		UNION ALL SELECT 2, name FROM intents WHERE id <> ?4 AND backend = ?2 AND ref = ?3 LIMIT 1`
	deleteIntent  = `DELETE FROM intents WHERE id = ?`
	insertDestroy = `INSERT INTO intents (id, act, name, backend, ref, created)
		SELECT id, 'destroy', name, backend, ref, ? FROM keys WHERE id = ?`
	markDestroying = `UPDATE keys SET destroying = 1, version = version + 1 WHERE id = ? AND destroying = 0`
	unmarkDestroy  = `UPDATE keys SET destroying = 0, version = version + 1 WHERE id = ? AND destroying = 1`
	insertStone    = `INSERT INTO tombstones
		SELECT id, name, backend, ref, algorithm, purpose, residence, public, created, ? FROM keys WHERE id = ?`
	deleteKey    = `DELETE FROM keys WHERE id = ?`
	queryBackend = `SELECT backend FROM keys WHERE id = ?`
)

// BeginCreate makes it durable that a resident key is about to be made. It returns ErrExists when a key or another
// intent has the name, or the ref on that backend.
func (s *Store) BeginCreate(ctx context.Context, i Intent) error {
	return s.writer.doOne(ctx, "create key", func(t *transaction) error {
		if err := refuseTaken(t, i.ID, i.Name, i.Backend, i.Ref); err != nil {
			return err
		}
		return t.exec(insertCreate, i.ID[:], i.Name, i.Backend, string(i.Ref), i.Created.UnixNano())
	})
}

// AddKey adds a record, and removes the intent with the same identifier if there is one, at once. It returns ErrExists
// when another key or intent has the name, or the ref on that backend. Destroying and Version of key are not read.
func (s *Store) AddKey(ctx context.Context, k *Key) error {
	wrapped := k.Residence == holdfast.Wrapped
	do := s.writer.do
	if wrapped {
		do = s.writer.doOne // a wrapped key has no intent
	}
	err := do(ctx, "create key", func(t *transaction) error {
		if err := refuseTaken(t, k.ID, k.Name, k.Backend, k.Ref); err != nil {
			return err
		}
		var blob any // NULL, which an empty []byte is not
		if wrapped {
			blob = k.Blob
		}
		public := k.Public
		if public == nil {
			public = []byte{}
		}
		err := t.exec(insertKey, k.ID[:], k.Name, k.Backend, string(k.Ref), string(k.Algorithm), k.Purpose,
			int(k.Residence),
			public, blob, k.Place, int(k.PIN), int(k.Touch), k.Adopted, k.State, k.Created.UnixNano())
		if err != nil || wrapped {
			return err
		}
		return t.exec(deleteIntent, k.ID[:])
	})
	if err == nil {
		s.count(k.Backend, 1)
	}
	return err
}

// refuseTaken returns ErrExists when the name or ref belongs to a key, or to the intent of another one.
func refuseTaken(t *transaction, id ID, name, backend string, ref holdfast.Ref) error {
	var by int
	var other string
	err := t.scan(queryTaken, []any{name, backend, string(ref), id[:]}, &by, &other)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case by == 0:
		return holdfast.Errorf(holdfast.ErrExists, "", "there is a key called %q already: choose another name", name)
	case by == 1:
		return holdfast.Errorf(holdfast.ErrExists, "", "%s is the key %q already", ref, other)
	default:
		return holdfast.Errorf(holdfast.ErrExists, "",
			"a key called %q is being made there, or what is left of its making waits to be cleaned up", other)
	}
}

// DropIntent removes an intent without an outcome: nothing was done, or it was undone.
func (s *Store) DropIntent(ctx context.Context, id ID) error {
	return s.writer.doOne(ctx, "drop intent", func(t *transaction) error { return t.exec(deleteIntent, id[:]) })
}

// BeginDestroy makes it durable that a key is about to be destroyed and marks its record. It returns ErrNotFound when
// there is no such record. Beginning again what was begun is no error.
func (s *Store) BeginDestroy(ctx context.Context, id ID, at time.Time) error {
	return s.writer.do(ctx, "destroy key", func(t *transaction) error {
		var backend string
		if err := scanKeyBackend(t, id, &backend); err != nil {
			return err
		}
		n, err := t.changed(markDestroying, id[:])
		if err != nil || n == 0 {
			return err
		}
		return t.exec(insertDestroy, at.UnixNano(), id[:])
	})
}

// AbortDestroy takes BeginDestroy back: the device refused, and the key is whole.
func (s *Store) AbortDestroy(ctx context.Context, id ID) error {
	return s.writer.do(ctx, "destroy key", func(t *transaction) error {
		if err := t.exec(unmarkDestroy, id[:]); err != nil {
			return err
		}
		return t.exec(deleteIntent, id[:])
	})
}

// FinishDestroy removes a record and its intent and leaves a tombstone, at once. For a wrapped key this is the whole
// destruction: there is nothing on the device. It returns ErrNotFound when there is no such record.
func (s *Store) FinishDestroy(ctx context.Context, id ID, at time.Time) error {
	var backend string
	err := s.writer.do(ctx, "destroy key", func(t *transaction) error {
		if err := scanKeyBackend(t, id, &backend); err != nil {
			return err
		}
		if err := t.exec(insertStone, at.UnixNano(), id[:]); err != nil {
			return err
		}
		if err := t.exec(deleteKey, id[:]); err != nil {
			return err
		}
		return t.exec(deleteIntent, id[:])
	})
	if err == nil {
		s.count(backend, -1)
	}
	return err
}

func scanKeyBackend(t *transaction, id ID, backend *string) error {
	err := t.scan(queryBackend, []any{id[:]}, backend)
	if errors.Is(err, sql.ErrNoRows) {
		return holdfast.Errorf(holdfast.ErrNotFound, "destroy key", "there is no key with identifier %s", id)
	}
	return err
}

// Intents returns the intents of a backend, oldest first.
func (s *Store) Intents(ctx context.Context, backend string) ([]Intent, error) {
	var intents []Intent
	err := s.query(ctx, "read intents", queryIntents, func(rows *sql.Rows) error {
		var i Intent
		var id []byte
		var created int64
		if err := rows.Scan(&id, &i.Act, &i.Name, &i.Backend, &i.Ref, &created); err != nil {
			return err
		}
		copy(i.ID[:], id)
		i.Created = time.Unix(0, created).UTC()
		intents = append(intents, i)
		return nil
	}, backend)
	return intents, err
}

// HasIntent reports whether there is an intent with that identifier.
func (s *Store) HasIntent(ctx context.Context, id ID) (bool, error) {
	found := false
	err := s.query(ctx, "read intent", queryIntent, func(*sql.Rows) error { found = true; return nil }, id[:])
	return found, err
}
