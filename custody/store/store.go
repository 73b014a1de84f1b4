package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"holdfast"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// readers is how many connections read at once. Each costs up to readerCache of memory.
const readers = 4

// The page caches of one connection, in KiB.
const (
	writerCache = "8192"
	readerCache = "2048"
)

// Store is an open store. Its methods may be called from several goroutines at once.
type Store struct {
	path   string
	lock   *os.File
	writer *writer
	write  *sql.DB
	read   *sql.DB

	statements sync.Map     // SQL text → *sql.Stmt on read
	counts     sync.Map     // backend name → *atomic.Int64, the number of its key records
	closed     atomic.Bool  // set by Close
	inFlight   sync.RWMutex // read-locked by readers; Close waits for them
}

var _ holdfast.PINMemory = (*Store)(nil)

// FileName is the store's file in its folder. SQLite keeps others beside it.
const FileName = "holdfast.db"

// Open opens the store in the folder dir and makes what is missing: the folder with mode 0700, files with 0600. ctx
// bounds the opening only.
func Open(ctx context.Context, dir string) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "open store", "%w", err)
	}
	path := filepath.Join(dir, FileName)
	if err := prepareFiles(path); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, lock: lock}
	if err := s.open(ctx); err != nil {
		return nil, and(err, s.release())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	var err error
	s.write, err = sql.Open("sqlite", dataSource(s.path, url.Values{
		// FULL syncs the WAL at every commit: only then is a commit durable. secure_delete overwrites deleted content.
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "secure_delete(1)",
			"trusted_schema(0)",
			"temp_store(MEMORY)", "cache_size(-" + writerCache + ")", "busy_timeout(5000)"},
	}))
	if err != nil {
		return translate("open store", err)
	}
	s.write.SetMaxOpenConns(1)
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return translate("open store", err)
	}
	if err := migrate(ctx, conn); err != nil {
		return and(err, conn.Close())
	}
	s.writer = startWriter(context.WithoutCancel(ctx), conn)
	s.read, err = sql.Open("sqlite", dataSource(s.path, url.Values{
		"mode": {"ro"},
		"_pragma": {"query_only(1)", "trusted_schema(0)", "temp_store(MEMORY)", "cache_size(-" + readerCache + ")",
			"busy_timeout(5000)"},
	}))
	if err != nil {
		return translate("open store", err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s.loadCounts(ctx)
}

// Close waits for calls in flight and closes the store. It is idempotent.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.inFlight.Lock()
	defer s.inFlight.Unlock()
	return s.release()
}

func (s *Store) release() error {
	var errs []error
	if s.writer != nil {
		errs = append(errs, s.writer.stop())
	}
	s.statements.Range(func(_, stmt any) bool {
		errs = append(errs, stmt.(*sql.Stmt).Close())
		return true
	})
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	errs = append(errs, s.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return translate("close store", err)
	}
	return nil
}

// dataSource returns path as an SQLite URI.
func dataSource(path string, query url.Values) string {
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	return u.String()
}

// statement returns query prepared for reading.
func (s *Store) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := s.statements.Load(query); ok {
		return stmt.(*sql.Stmt), nil
	}
	stmt, err := s.read.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if first, loaded := s.statements.LoadOrStore(query, stmt); loaded {
		return first.(*sql.Stmt), stmt.Close()
	}
	return stmt, nil
}

// query runs a query and gives every row to scan.
func (s *Store) query(ctx context.Context, op, query string, scan func(*sql.Rows) error, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.inFlight.RLock()
	defer s.inFlight.RUnlock()
	if s.closed.Load() {
		return errClosed(op)
	}
	// Reads are short; the driver would start a goroutine per statement to watch ctx.
	ctx = context.WithoutCancel(ctx)
	stmt, err := s.statement(ctx, query)
	if err != nil {
		return translate(op, err)
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return translate(op, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err below has what went wrong
	for rows.Next() {
		if err := scan(rows); err != nil {
			return translate(op, err)
		}
	}
	if err := rows.Err(); err != nil {
		return translate(op, err)
	}
	return nil
}

// and returns err, with what went wrong in cleaning up after it for people to read. The code stays that of err, which
// that of errors.Join would not.
func and(err, cleanup error) error {
	if cleanup == nil {
		return err
	}
	return fmt.Errorf("%w; cleaning up: %s", err, cleanup)
}

func errClosed(op string) error {
	return holdfast.Errorf(holdfast.ErrUnavailable, op, "the store is closed")
}

// translate gives an error of SQLite its code. An error that has one keeps it.
func translate(op string, err error) error {
	if _, ok := errors.AsType[*holdfast.Error](err); ok || errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	code := holdfast.ErrInternal
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the rest is the extended code
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			code = holdfast.ErrIntegrity
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
			code = holdfast.ErrUnavailable
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			code = holdfast.ErrBusy
		}
	}
	return holdfast.Errorf(code, op, "database: %w", err)
}

// isUnique reports whether err is a violated UNIQUE or PRIMARY KEY constraint on column ("keys.name").
func isUnique(err error, column string) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok || e.Code() != sqlite3.SQLITE_CONSTRAINT_UNIQUE && e.Code() != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		return false
	}
	return strings.Contains(e.Error(), column)
}
