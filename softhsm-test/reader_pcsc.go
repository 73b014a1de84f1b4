package softhsmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// This file is the part of pcsc-lite's client protocol that tells when a card comes and goes. libpcsclite could, but
// needs cgo and is tied to one daemon for the life of a process.

// Commands and constants of pcsc-lite's protocol.
const (
	pcscVersion         = 0x11
	pcscWaitStateChange = 0x13

	pcscMajor = 4
	pcscMinor = 4

	pcscReaders    = 16  // entries in a list of states
	pcscNameLen    = 128 // of a reader's name
	pcscEventLen   = 8   // of what tells that a state has changed
	pcscStateCard  = 0x0004
	pcscStatePower = 0x0010
)

// readerState is what the daemon knows about one slot.
type readerState struct {
	name string
	bits uint32
}

func (s readerState) present() bool { return s.bits&pcscStateCard != 0 }
func (s readerState) powered() bool { return s.bits&pcscStatePower != 0 }

// awaitReaderState returns when the states of the daemon's slots satisfy done. The daemon tells of every change, so
// nothing is polled.
func awaitReaderState(ctx context.Context, socket string, done func([]readerState) bool) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = awaitOn(conn, done)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func awaitOn(conn net.Conn, done func([]readerState) bool) error {
	if err := agreeOnVersion(conn); err != nil {
		return err
	}
	for {
		// The daemon answers with the states as they are and, once, with an event when one changes.
		if err := sendPCSC(conn, pcscWaitStateChange, nil); err != nil {
			return err
		}
		states, changed, err := readStates(conn)
		if err != nil {
			return fmt.Errorf("read reader states: %w", err)
		}
		if done(states) {
			return nil
		}
		if changed {
			continue
		}
		if _, err := io.ReadFull(conn, make([]byte, pcscEventLen)); err != nil {
			return fmt.Errorf("wait for a reader to change: %w", err)
		}
	}
}

// agreeOnVersion opens the conversation.
func agreeOnVersion(conn net.Conn) error {
	body := binary.NativeEndian.AppendUint32(nil, pcscMajor)
	body = binary.NativeEndian.AppendUint32(body, pcscMinor)
	body = binary.NativeEndian.AppendUint32(body, 0)
	if err := sendPCSC(conn, pcscVersion, body); err != nil {
		return err
	}
	var answer [12]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("read protocol version: %w", err)
	}
	if binary.NativeEndian.Uint32(answer[8:]) != 0 {
		return fmt.Errorf("pcscd speaks protocol %d.%d, wanted %d.%d", binary.NativeEndian.Uint32(answer[0:]),
			binary.NativeEndian.Uint32(answer[4:]), pcscMajor, pcscMinor)
	}
	return nil
}

func sendPCSC(conn net.Conn, command uint32, body []byte) error {
	message := binary.NativeEndian.AppendUint32(nil, uint32(len(body)))
	message = binary.NativeEndian.AppendUint32(message, command)
	_, err := conn.Write(append(message, body...))
	return err
}

// readStates reads the list of all slots. changed says that the event came along: the daemon sends it from another thread,
// before the list, after it, and together with it.
func readStates(conn net.Conn) (states []readerState, changed bool, err error) {
	buffer := make([]byte, 1<<16)
	n, err := conn.Read(buffer)
	if err == nil && n == pcscEventLen {
		changed = true
		n, err = conn.Read(buffer)
	}
	if err != nil {
		return nil, false, err
	}
	list := buffer[:n]
	if n%pcscReaders == pcscEventLen {
		// An event is zeros, and the list begins with the name of the first slot.
		changed = true
		if list[0] == 0 {
			list = list[pcscEventLen:]
		} else {
			list = list[:n-pcscEventLen]
		}
	}
	states, err = parseStates(list)
	return states, changed, err
}

// parseStates parses the list of all slots. An entry's size depends on how the daemon was compiled (184 bytes here), so it
// is had from the whole.
func parseStates(list []byte) ([]readerState, error) {
	size := len(list) / pcscReaders
	if len(list)%pcscReaders != 0 || size < pcscNameLen+8 {
		return nil, fmt.Errorf("%d bytes are no list of reader states", len(list))
	}
	var states []readerState
	for ; len(list) > 0; list = list[size:] {
		name, _, _ := bytes.Cut(list[:pcscNameLen], []byte{0})
		if len(name) > 0 {
			// A counter of events stands between name and state.
			states = append(states, readerState{string(name), binary.NativeEndian.Uint32(list[pcscNameLen+4:])})
		}
	}
	return states, nil
}
