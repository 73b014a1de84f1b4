package softhsmtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"holdfast/softhsm-test/vpiv"
)

// ReaderSlots is how many cards a Reader takes at once, in slots 0 and 1.
const ReaderSlots = 2

// Reader is a card reader with two slots for virtual PIV cards: a private PC/SC daemon (pcscd) with the vpcd driver, a
// child of this process in mount and network namespaces of its own. It sees no other readers, no other daemon sees it,
// and it dies with this process.
type Reader struct {
	// Socket is the daemon's socket: what PCSCLITE_CSOCK_NAME must be for a program to use this reader. libpcsclite reads
	// that variable once in the life of a process.
	Socket string

	daemon *pcscd

	mu    sync.Mutex // guards cards
	cards [ReaderSlots]*insertion
}

// insertion is a card in a slot.
type insertion struct {
	pull    context.CancelFunc
	leaving chan struct{} // closed before the card's connection is
	done    chan struct{} // closed when the card no longer touches anything
}

// slotConn is a card's connection to its slot. It tells that the card leaves before the daemon, and so a client, can know:
// whoever has seen a card leave can insert another.
type slotConn struct {
	net.Conn
	leave func()
}

// Close ends the connection.
func (c slotConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// StartReader starts a reader that keeps its socket and configuration in dir, which is made where it does not exist and
// whose path must leave room for a socket's (108 bytes in all). Without root's rights it uses a user namespace. ctx
// bounds the start only; the reader runs until Stop.
func StartReader(ctx context.Context, dir string) (*Reader, error) {
	return startReader(ctx, dir, os.Geteuid() != 0)
}

// startReader starts a reader in a user namespace or with root's rights.
func startReader(ctx context.Context, dir string, user bool) (*Reader, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	daemon, err := startPCSCD(dir, user)
	if err != nil {
		return nil, fmt.Errorf("start pcscd: %w", err)
	}
	r := &Reader{Socket: daemon.socket, daemon: daemon}
	if err := r.await(ctx, 0, false); err != nil {
		return nil, errors.Join(fmt.Errorf("start pcscd: %w", err), r.Stop())
	}
	return r, nil
}

// readerLink is the name under which the tests of one process reach whatever reader is there: libpcsclite keeps the first
// name it sees, so the name stays and what it points to changes.
func readerLink() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("holdfast-pcscd-%d.comm", os.Getpid()))
}

// ReaderFor starts a reader for one test, makes PC/SC clients in this process use it, and stops it with the test. There
// can be one at a time.
func ReaderFor(tb testing.TB) *Reader {
	tb.Helper()
	// Not tb.TempDir: the path would be too long for a socket.
	dir, err := os.MkdirTemp("", "holdfast-reader")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	r, err := StartReader(tb.Context(), dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Stop(); err != nil {
			tb.Error(err)
		}
	})
	link := readerLink()
	if err := pointLink(tb.Context(), link, r.Socket); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.Remove(link) })
	tb.Setenv("PCSCLITE_CSOCK_NAME", link)
	return r
}

// pointLink makes link lead to a socket, unless it leads to one that somebody listens on. A process that was killed may
// have left a link of the same name.
func pointLink(ctx context.Context, link, socket string) error {
	err := os.Symlink(socket, link)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	var dialer net.Dialer
	if conn, err := dialer.DialContext(ctx, "unix", link); err == nil {
		return errors.Join(errors.New("another test of this process has a reader already: there can be one at a time"), conn.Close())
	}
	if err := os.Remove(link); err != nil {
		return err
	}
	return os.Symlink(socket, link)
}

// Name returns the slot's name as PC/SC clients know it.
func (r *Reader) Name(slot int) string { return fmt.Sprintf("%s 00 %02d", readerName, slot) }

// Insert puts a card into a slot and returns when the daemon has it powered up. A card can be in one slot at a time; a
// slot whose card a fault pulled out is free.
func (r *Reader) Insert(ctx context.Context, slot int, card *vpiv.Card) error {
	if slot < 0 || slot >= ReaderSlots {
		return fmt.Errorf("the reader has no slot %d", slot)
	}
	if !r.vacate(slot) {
		return fmt.Errorf("slot %d has a card already", slot)
	}
	// A card that a fault pulled out may still be there for the daemon.
	if err := r.await(ctx, slot, false); err != nil {
		return fmt.Errorf("insert card: %w", err)
	}
	conn, err := r.daemon.dial(ctx, vpcdPort+slot)
	if err != nil {
		return fmt.Errorf("insert card: %w", err)
	}
	r.serve(slot, card, conn)
	if err := r.await(ctx, slot, true); err != nil {
		return errors.Join(fmt.Errorf("insert card: %w", err), r.Remove(ctx, slot))
	}
	return nil
}

// vacate reports whether the slot has no card that answers.
func (r *Reader) vacate(slot int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.cards[slot]
	if in == nil {
		return true
	}
	select {
	case <-in.leaving:
		in.pull()
		<-in.done
		r.cards[slot] = nil
		return true
	default:
		return false
	}
}

// serve lets the card answer what the driver sends. The context is the insertion's own: it ends when the card is removed,
// not when the call that inserted it does.
func (r *Reader) serve(slot int, card *vpiv.Card, conn net.Conn) {
	ctx, pull := context.WithCancel(context.Background())
	in := &insertion{pull: pull, leaving: make(chan struct{}), done: make(chan struct{})}
	leave := sync.OnceFunc(func() { close(in.leaving) })
	r.mu.Lock()
	r.cards[slot] = in
	r.mu.Unlock()
	go func() {
		defer close(in.done)
		if err := card.Serve(ctx, slotConn{conn, leave}); err != nil {
			r.daemon.log.note(fmt.Sprintf("card in slot %d: %v", slot, err))
		}
	}()
}

// Remove pulls the card out of a slot and returns when the daemon has noticed. Removing a card that a fault has already
// pulled, or no card, only waits for the daemon.
func (r *Reader) Remove(ctx context.Context, slot int) error {
	if slot < 0 || slot >= ReaderSlots {
		return fmt.Errorf("the reader has no slot %d", slot)
	}
	r.mu.Lock()
	in := r.cards[slot]
	r.cards[slot] = nil
	r.mu.Unlock()
	if in != nil {
		in.pull()
		<-in.done
	}
	if err := r.await(ctx, slot, false); err != nil {
		return fmt.Errorf("remove card: %w", err)
	}
	return nil
}

// Stop pulls the cards and ends the daemon. It is idempotent.
func (r *Reader) Stop() error {
	r.mu.Lock()
	cards := r.cards
	r.cards = [ReaderSlots]*insertion{}
	r.mu.Unlock()
	for _, in := range cards {
		if in != nil {
			in.pull()
			<-in.done
		}
	}
	return r.daemon.stop()
}

// Log returns what the daemon said last, for messages about failures.
func (r *Reader) Log() string { return r.daemon.log.String() }

// await returns when the daemon sees a powered card in the slot, or none.
func (r *Reader) await(ctx context.Context, slot int, present bool) error {
	err := awaitReaderState(ctx, r.Socket, func(states []readerState) bool {
		for _, s := range states {
			if s.name == r.Name(slot) {
				return s.powered() == present && s.present() == present
			}
		}
		return false
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w; pcscd said:\n%s", err, r.daemon.log)
	}
	return err
}
