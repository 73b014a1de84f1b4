package store

import (
	"context"
	"database/sql"
	"slices"

	"holdfast"
)

const (
	queryPIN     = `SELECT state FROM pin_memory WHERE device = ?`
	upsertPIN    = `INSERT INTO pin_memory (device, state) VALUES (?, ?) ON CONFLICT (device) DO UPDATE SET state = excluded.state`
	querySecret  = `SELECT value FROM secrets WHERE name = ?`
	upsertSecret = `INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	deleteSecret = `DELETE FROM secrets WHERE name = ?`
)

// LoadPIN returns what became of the last PIN that was given to device; PINAccepted when none ever was.
func (s *Store) LoadPIN(ctx context.Context, device string) (holdfast.PINState, error) {
	state := holdfast.PINAccepted
	err := s.query(ctx, "read PIN memory", queryPIN, func(rows *sql.Rows) error { return rows.Scan(&state) }, device)
	return state, err
}

// StorePIN makes state durable.
func (s *Store) StorePIN(ctx context.Context, device string, state holdfast.PINState) error {
	return s.writer.doOne(ctx, "write PIN memory", func(t *transaction) error { return t.exec(upsertPIN, device, int(state)) })
}

// LoadSecret returns the secret called name, and whether there is one. The caller may wipe it.
func (s *Store) LoadSecret(ctx context.Context, name string) (holdfast.Secret, bool, error) {
	var value []byte
	found := false
	err := s.query(ctx, "read secret", querySecret, func(rows *sql.Rows) error {
		found = true
		return rows.Scan(&value)
	}, name)
	if err != nil || !found {
		return holdfast.Secret{}, false, err
	}
	return holdfast.NewSecret(value), true, nil
}

// StoreSecret makes a secret durable under name, over the one that was there. It is not encrypted: the file's mode is
// what protects it.
func (s *Store) StoreSecret(ctx context.Context, name string, value holdfast.Secret) error {
	plain := slices.Clone(value.Bytes()) // the driver is handed a copy, for the caller may wipe its own
	defer clear(plain)
	if plain == nil {
		plain = []byte{}
	}
	return s.writer.doOne(ctx, "write secret", func(t *transaction) error { return t.exec(upsertSecret, name, plain) })
}

// DeleteSecret forgets a secret; one that is not there is no error.
func (s *Store) DeleteSecret(ctx context.Context, name string) error {
	return s.writer.doOne(ctx, "delete secret", func(t *transaction) error { return t.exec(deleteSecret, name) })
}
