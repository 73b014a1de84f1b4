package vpiv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// inserted is a card in a reader that a test plays.
type inserted struct {
	t    *testing.T
	card *Card
	conn net.Conn
	done chan error // gets what Serve returned
	pull context.CancelFunc
}

func insert(t *testing.T) *inserted {
	t.Helper()
	card, err := NewCard(Config{})
	if err != nil {
		t.Fatal(err)
	}
	reader, theirs := net.Pipe()
	ctx, pull := context.WithCancel(t.Context())
	in := &inserted{t, card, reader, make(chan error, 1), pull}
	go func() { in.done <- card.Serve(ctx, theirs) }()
	t.Cleanup(func() { pull(); _ = reader.Close() })
	return in
}

func (in *inserted) send(message string) {
	in.t.Helper()
	if err := writeMessage(in.conn, unhex(in.t, message)); err != nil {
		in.t.Fatal(err)
	}
}

func (in *inserted) ask(message string) []byte {
	in.t.Helper()
	in.send(message)
	answer, err := readMessage(in.conn)
	if err != nil {
		in.t.Fatal(err)
	}
	return answer
}

// gone checks that the card has left without another word.
func (in *inserted) gone() {
	in.t.Helper()
	if rest, err := io.ReadAll(in.conn); len(rest) != 0 || err != nil {
		in.t.Errorf("the card left with % X, %v", rest, err)
	}
	if err := <-in.done; err != nil {
		in.t.Errorf("Serve: %v", err)
	}
}

const (
	apduSelect  = "00 A4 04 00 05 A0 00 00 03 08"
	apduVersion = "00 FD 00 00"
)

func TestServe(t *testing.T) {
	in := insert(t)
	in.send("01")
	got := in.ask("04")
	check := byte(0)
	for _, b := range got[1:] {
		check ^= b
	}
	if got[0] != 0x3B || int(got[1]&0x0F) != len(got)-4 || check != 0 {
		t.Errorf("ATR: % X", got)
	}
	in.ask(apduSelect)
	if got := in.ask(apduVersion); !bytes.Equal(got, unhex(t, "05 07 01 90 00")) {
		t.Errorf("version: % X", got)
	}
	in.send("02")
	if got := in.ask(apduVersion); !bytes.Equal(got, unhex(t, "6D 00")) {
		t.Errorf("after a reset: % X", got)
	}
	in.ask(apduSelect)
	in.send("00")
	in.send("01")
	if got := in.ask(apduVersion); !bytes.Equal(got, unhex(t, "6D 00")) {
		t.Errorf("after power off and on: % X", got)
	}
	in.pull()
	in.gone()
}

func TestServeEnds(t *testing.T) {
	in := insert(t)
	_ = in.conn.Close()
	if err := <-in.done; err != nil {
		t.Errorf("the reader closed: %v", err)
	}
	for name, bytes := range map[string][]byte{
		"half a message": {0, 5, 0}, "empty message": {0, 0}, "unknown control": {0, 1, 9}, "half a length": {0},
	} {
		in := insert(t)
		if _, err := in.conn.Write(bytes); err != nil {
			t.Fatal(err)
		}
		_ = in.conn.Close()
		if err := <-in.done; err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestServeForgetsSession(t *testing.T) {
	in := insert(t)
	in.ask(apduSelect)
	in.ask("00 20 00 80 08 31 32 33 34 35 36 FF FF")
	in.pull()
	in.gone()
	if in.card.session.pinVerified || in.card.session.app != appNone {
		t.Error("a card that was pulled out is still logged in")
	}
}

func TestMessages(t *testing.T) {
	var buffer bytes.Buffer
	if err := writeMessage(&buffer, make([]byte, 1<<16)); err == nil || buffer.Len() != 0 {
		t.Errorf("message too long: %v", err)
	}
	if _, err := readMessage(&buffer); !errors.Is(err, io.EOF) {
		t.Errorf("no message: %v", err)
	}
	writes := &countingWriter{}
	if err := writeMessage(writes, []byte("message")); err != nil || writes.n != 1 {
		t.Errorf("%d writes, %v", writes.n, err)
	}
}

// countingWriter counts writes.
type countingWriter struct{ n int }

func (w *countingWriter) Write(p []byte) (int, error) { w.n++; return len(p), nil }
