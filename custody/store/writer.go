package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"holdfast"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxGroup is how many writes share one transaction at most. It bounds how long the first of them waits.
const maxGroup = 256

// writer runs all writes on one connection. What queued up while the last transaction was being synced to disk becomes
// the next transaction: no write waits for a timer, and many writers share one sync.
type writer struct {
	ctx   context.Context // never ends: once begun, a write is finished and its outcome known
	conn  *sql.Conn
	queue chan *write
	done  chan struct{} // closed when the goroutine has ended

	mu     sync.RWMutex // guards closed and the closing of queue
	closed bool

	statements map[string]*sql.Stmt // by SQL text; used by the goroutine only
}

// write is one caller's unit: it is applied as a whole or not at all.
type write struct {
	ctx    context.Context
	apply  func(*transaction) error
	one    bool // apply changes something with one statement at most, its last: when it fails, there is nothing to undo
	result chan error
}

// transaction is what a write is applied to.
type transaction struct{ w *writer }

func startWriter(ctx context.Context, conn *sql.Conn) *writer {
	w := &writer{
		ctx: ctx, conn: conn,
		queue:      make(chan *write, maxGroup),
		done:       make(chan struct{}),
		statements: make(map[string]*sql.Stmt),
	}
	go w.run()
	return w
}

// stop waits for the writes that are queued and ends the goroutine.
func (w *writer) stop() error {
	w.mu.Lock()
	w.closed = true
	close(w.queue)
	w.mu.Unlock()
	<-w.done
	var errs []error
	for _, stmt := range w.statements {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// do applies a write and returns when it is durable, or when it was not made. A ctx that ends before the write is begun
// prevents it; afterwards the outcome is waited for, so that it is never unknown.
func (w *writer) do(ctx context.Context, op string, apply func(*transaction) error) error {
	return w.wait(op, &write{ctx: ctx, apply: apply, result: make(chan error, 1)})
}

// doOne is do for a write that changes something with one statement at most, its last.
func (w *writer) doOne(ctx context.Context, op string, apply func(*transaction) error) error {
	return w.wait(op, &write{ctx: ctx, apply: apply, one: true, result: make(chan error, 1)})
}

func (w *writer) wait(op string, req *write) error {
	if err := req.ctx.Err(); err != nil {
		return err
	}
	if err := w.enqueue(op, req); err != nil {
		return err
	}
	if err := <-req.result; err != nil {
		return translate(op, err)
	}
	return nil
}

func (w *writer) enqueue(op string, req *write) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return errClosed(op)
	}
	select {
	case w.queue <- req:
		return nil
	case <-req.ctx.Done():
		return req.ctx.Err()
	}
}

func (w *writer) run() {
	defer close(w.done)
	group := make([]*write, 0, maxGroup)
	for first := range w.queue {
		group = append(group[:0], first)
		for more := true; more && len(group) < maxGroup; {
			select {
			case next, ok := <-w.queue:
				if more = ok; ok {
					group = append(group, next)
				}
			default:
				more = false
			}
		}
		w.commit(group)
	}
}

// commit applies a group in one transaction and tells every caller its outcome.
func (w *writer) commit(group []*write) {
	results := make([]error, len(group))
	err := w.exec("BEGIN IMMEDIATE")
	if err == nil {
		for i, req := range group {
			if results[i], err = w.applyOne(req); err != nil {
				break
			}
		}
		if err == nil {
			err = w.exec("COMMIT")
		}
		if err != nil {
			err = and(err, w.exec("ROLLBACK"))
		}
	}
	for i, req := range group {
		if err != nil {
			results[i] = err
		}
		req.result <- results[i]
	}
}

// applyOne applies one write of a group in a savepoint, so that one that fails leaves the others alone. The second error
// is one that the whole transaction cannot go on after.
func (w *writer) applyOne(req *write) (result, fatal error) {
	if err := req.ctx.Err(); err != nil {
		return err, nil
	}
	if req.one {
		return sort(req.apply(&transaction{w}))
	}
	if err := w.exec("SAVEPOINT one"); err != nil {
		return nil, err
	}
	if result, fatal = sort(req.apply(&transaction{w})); fatal != nil {
		return nil, fatal
	}
	if result != nil {
		if err := w.exec("ROLLBACK TO one"); err != nil {
			return nil, and(err, result)
		}
	}
	return result, w.exec("RELEASE one")
}

// sort tells an error of one write from one after which SQLite may have rolled the whole transaction back (a full disk):
// going on would write outside of any.
func sort(err error) (result, fatal error) {
	if _, ours := errors.AsType[*holdfast.Error](err); err == nil || ours {
		return err, nil
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_CONSTRAINT {
		return err, nil
	}
	return nil, err
}

func (w *writer) prepare(query string) (*sql.Stmt, error) {
	if stmt := w.statements[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := w.conn.PrepareContext(w.ctx, query)
	if err != nil {
		return nil, err
	}
	w.statements[query] = stmt
	return stmt, nil
}

func (w *writer) exec(query string, args ...any) error {
	stmt, err := w.prepare(query)
	if err != nil {
		return err
	}
	_, err = stmt.ExecContext(w.ctx, args...)
	return err
}

// exec runs a statement.
func (t *transaction) exec(query string, args ...any) error { return t.w.exec(query, args...) }

// changed runs a statement and returns how many rows it changed.
func (t *transaction) changed(query string, args ...any) (int64, error) {
	stmt, err := t.w.prepare(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(t.w.ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// scan reads the one row of a query, sql.ErrNoRows if there is none.
func (t *transaction) scan(query string, args []any, into ...any) error {
	stmt, err := t.w.prepare(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(t.w.ctx, args...).Scan(into...)
}
