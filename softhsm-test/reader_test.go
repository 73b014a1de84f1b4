package softhsmtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast/softhsm-test/vpiv"
)

// newCard makes a card.
func newCard(t *testing.T, config vpiv.Config) *vpiv.Card {
	t.Helper()
	card, err := vpiv.NewCard(config)
	if err != nil {
		t.Fatal(err)
	}
	return card
}

// insert puts a card into slot 0 for the rest of a test.
func insert(t *testing.T, r *Reader, card *vpiv.Card) {
	t.Helper()
	if err := r.Insert(t.Context(), 0, card); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Remove(context.WithoutCancel(t.Context()), 0); err != nil {
			t.Error(err)
		}
	})
}

// open opens the card in a slot with piv-go for the rest of a test.
func open(t *testing.T, r *Reader, slot int) *piv.YubiKey {
	t.Helper()
	yk, err := piv.Open(r.Name(slot))
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Log())
	}
	t.Cleanup(func() { _ = yk.Close() }) // a card that was pulled out cannot be closed in good order
	return yk
}

// serial opens the card in a slot, asks for its serial number and closes it.
func serial(t *testing.T, r *Reader, slot int) uint32 {
	t.Helper()
	yk, err := piv.Open(r.Name(slot))
	if err != nil {
		t.Fatal(err)
	}
	n, err := yk.Serial()
	if err = errors.Join(err, yk.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestInsertAndRemove(t *testing.T) {
	r := ReaderFor(t)
	names, err := piv.Cards()
	if err != nil || len(names) != ReaderSlots || names[0] != r.Name(0) || names[1] != r.Name(1) {
		t.Fatalf("readers %q, %v", names, err)
	}
	for i := range uint32(3) {
		card := newCard(t, vpiv.Config{Serial: 100 + i})
		if err := r.Insert(t.Context(), 0, card); err != nil {
			t.Fatal(err)
		}
		if got := serial(t, r, 0); got != 100+i {
			t.Errorf("cycle %d: serial %d", i, got)
		}
		if err := r.Remove(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := piv.Open(r.Name(0)); err == nil {
			t.Errorf("cycle %d: a card that is out was opened", i)
		}
	}
}

func TestTwoSlots(t *testing.T) {
	r := ReaderFor(t)
	for slot := range ReaderSlots {
		if err := r.Insert(t.Context(), slot, newCard(t, vpiv.Config{Serial: uint32(slot)})); err != nil {
			t.Fatal(err)
		}
	}
	one, other := open(t, r, 0), open(t, r, 1) // both at once
	for i, yk := range []*piv.YubiKey{one, other} {
		if n, err := yk.Serial(); err != nil || n != uint32(i) {
			t.Errorf("slot %d: serial %d, %v", i, n, err)
		}
	}
	if err := r.Insert(t.Context(), 1, newCard(t, vpiv.Config{})); err == nil {
		t.Error("two cards in one slot")
	}
	if err := r.Remove(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Serial(); err == nil {
		t.Error("a card that is out answers")
	}
	if n, err := other.Serial(); err != nil || n != 1 {
		t.Errorf("the card that stayed: serial %d, %v", n, err)
	}
}

func TestNoSuchSlot(t *testing.T) {
	r := ReaderFor(t)
	for _, slot := range []int{-1, ReaderSlots} {
		if err := r.Insert(t.Context(), slot, newCard(t, vpiv.Config{})); err == nil {
			t.Errorf("inserted into slot %d", slot)
		}
		if err := r.Remove(t.Context(), slot); err == nil {
			t.Errorf("removed from slot %d", slot)
		}
	}
	if err := r.Remove(t.Context(), 0); err != nil {
		t.Errorf("nothing to remove: %v", err)
	}
}

// TestUserNamespace uses the reader as it is for users without root's rights.
func TestUserNamespace(t *testing.T) {
	r, err := startReader(t.Context(), socketDir(t), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Stop() }()
	card := newCard(t, vpiv.Config{Serial: 5})
	for range 2 {
		if err := r.Insert(t.Context(), 0, card); err != nil {
			t.Fatal(err)
		}
		if out := tool(t, r, "opensc-tool", "--send-apdu", "00:A4:04:00:05:A0:00:00:03:08", "--send-apdu", "00:F8:00:00:04"); !strings.Contains(out, "00 00 00 05") {
			t.Errorf("serial number: %s", out)
		}
		if err := r.Remove(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// socketDir returns a folder with a short name.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "reader")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestReaderStops(t *testing.T) {
	dir := socketDir(t)
	var r *Reader
	for range 2 { // the folder can be used again
		var err error
		if r, err = StartReader(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if err := r.Insert(t.Context(), 1, newCard(t, vpiv.Config{})); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := os.Stat(r.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := r.Insert(t.Context(), 0, newCard(t, vpiv.Config{})); err == nil {
		t.Error("a card was inserted into a reader that was stopped")
	}
}

// TestReaderOverLeftovers starts where a killed process left its socket.
func TestReaderOverLeftovers(t *testing.T) {
	dir := socketDir(t)
	if err := os.WriteFile(filepath.Join(dir, "pcscd.comm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := StartReader(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestReaderFails(t *testing.T) {
	long := filepath.Join(socketDir(t), strings.Repeat("x", 100))
	if _, err := StartReader(t.Context(), long); err == nil {
		t.Error("a socket with a name too long")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartReader(ctx, socketDir(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r := ReaderFor(t)
	if err := r.Insert(ctx, 0, newCard(t, vpiv.Config{})); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDaemonDies checks that waiting for a card does not outlast the daemon.
func TestDaemonDies(t *testing.T) {
	r := ReaderFor(t)
	if err := r.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.daemon.done
	if err := r.Insert(t.Context(), 0, newCard(t, vpiv.Config{})); err == nil {
		t.Error("a card was inserted into a dead reader")
	}
}

func TestPointLink(t *testing.T) {
	r := ReaderFor(t)
	link := filepath.Join(socketDir(t), "link")
	for range 2 { // the second time over a link that leads nowhere
		if err := pointLink(t.Context(), link, filepath.Join(t.TempDir(), "gone")); err != nil {
			t.Fatal(err)
		}
	}
	if err := pointLink(t.Context(), link, r.Socket); err != nil {
		t.Fatal(err)
	}
	if err := pointLink(t.Context(), link, r.Socket); err == nil {
		t.Error("the link of a reader that is there was taken")
	}
}
