package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"holdfast"
)

// migrations are applied in the order of their names, each once and in its own transaction. They are only ever added to.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the file as a Holdfast store ("HOLD").
const applicationID = 0x484f4c44

// migrate brings the schema up to date. PRAGMA user_version counts the migrations that were applied.
func migrate(ctx context.Context, conn *sql.Conn) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return translate("open store", err)
	}
	version, err := checkSchema(ctx, conn)
	if err != nil {
		return err
	}
	if version > len(files) {
		return holdfast.Errorf(holdfast.ErrInvalid, "open store",
			"the store has schema %d and this Holdfast knows %d: use the version that wrote it, or a newer one", version, len(files))
	}
	for i := version; i < len(files); i++ {
		text, err := migrations.ReadFile(files[i])
		if err != nil {
			return translate("open store", err)
		}
		if err := applyMigration(ctx, conn, string(text), i+1); err != nil {
			return translate("open store", fmt.Errorf("%s: %w", files[i], err))
		}
	}
	return nil
}

// checkSchema returns the schema's version, 0 for an empty file, and ErrInvalid for a database of something else.
func checkSchema(ctx context.Context, conn *sql.Conn) (int, error) {
	var version, id, tables int
	err := errors.Join(
		conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
		conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id),
		conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables),
	)
	if err != nil {
		return 0, translate("open store", err)
	}
	if id != applicationID && (id != 0 || tables != 0) {
		return 0, holdfast.Errorf(holdfast.ErrInvalid, "open store",
			"the file is a database, but not one of Holdfast: choose another path")
	}
	return version, nil
}

func applyMigration(ctx context.Context, conn *sql.Conn, text string, version int) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		text,
		fmt.Sprintf("PRAGMA application_id = %d", applicationID),
		fmt.Sprintf("PRAGMA user_version = %d", version),
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return and(err, tx.Rollback())
		}
	}
	return tx.Commit()
}
