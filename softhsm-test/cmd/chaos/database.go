package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver called sqlite

	"holdfast/custody/store"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// checkDatabase lets SQLite check the whole database, and returns how many interrupted acts it says are unfinished. The
// daemon must not run.
func checkDatabase(ctx context.Context, dir string) (unfinished int, err error) {
	path := url.URL{Scheme: "file", OmitHost: true, Path: filepath.Join(daemon.StateDir(dir), store.FileName)}
	db, err := sql.Open("sqlite", path.String())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&verdict); err != nil {
		return 0, fmt.Errorf("integrity_check: %w", err)
	}
	if verdict != "ok" {
		return 0, fmt.Errorf("integrity_check: %s", verdict)
	}
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM intents").Scan(&unfinished)
	return unfinished, err
}
