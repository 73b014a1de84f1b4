package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"holdfast"
)

// wire carries commands to a TPM and answers back. After an error of Send it is of no more use.
type wire = transport.TPMCloser

// lostError is the failure of the connection itself: what became of the command is not known.
type lostError struct{ err error }

func (e *lostError) Error() string {
	if e.timeout() {
		return "the TPM does not answer; another program may be using it: " + e.err.Error()
	}
	return "the connection to the TPM was lost: " + e.err.Error()
}

func (e *lostError) timeout() bool { return errors.Is(e.err, os.ErrDeadlineExceeded) }

func (e *lostError) Unwrap() error { return e.err }

// dial connects to the device, and reports whether the backend is alone with the TPM.
func dial(ctx context.Context, cfg Config) (w wire, direct bool, err error) {
	if path, ok := strings.CutPrefix(cfg.Device, "unix:"); ok {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, false, dialError(ctx, cfg.Device, err)
		}
		w, direct = &socket{conn: conn, timeout: cfg.CommandTimeout}, true
	} else {
		device, err := linuxtpm.Open(cfg.Device)
		if err != nil {
			return nil, false, dialError(ctx, cfg.Device, err)
		}
		w, direct = device, !strings.HasPrefix(filepath.Base(cfg.Device), "tpmrm")
	}
	if cfg.wrapTransport != nil {
		w = cfg.wrapTransport(w)
	}
	return &patient{wire: w, limit: cfg.CommandTimeout}, direct, nil
}

func dialError(ctx context.Context, device string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, linuxtpm.ErrFileIsNotDevice):
		return holdfast.Errorf(holdfast.ErrInvalid, "", "%s is no TPM device: name /dev/tpmrm0, /dev/tpm0 or unix:PATH "+
			"of a swtpm socket: %w", device, err)
	case errors.Is(err, fs.ErrPermission):
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "no permission to use %s: add the daemon's user to the group "+
			"that owns it (tss): %w", device, err)
	case errors.Is(err, fs.ErrNotExist):
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "there is no TPM at %s: enable it in the firmware setup, or "+
			"correct the path: %w", device, err)
	default:
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the TPM at %s cannot be opened: %w", device, err)
	}
}

// socket is a stream to a TPM that frames messages by the size in their header, as swtpm does.
type socket struct {
	conn    net.Conn
	timeout time.Duration
	buffer  [maxResponse]byte
}

const (
	headerSize  = 10   // tag, size, code (Part 1, section 18)
	maxResponse = 4096 // TPM_PT_MAX_RESPONSE_SIZE of every TPM known
)

// Send sends one command and returns the answer.
func (s *socket) Send(command []byte) ([]byte, error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.limit(command))); err != nil {
		return nil, &lostError{err}
	}
	if _, err := s.conn.Write(command); err != nil {
		return nil, &lostError{err}
	}
	n, err := io.ReadAtLeast(s.conn, s.buffer[:], headerSize)
	if err != nil {
		return nil, &lostError{err}
	}
	size := int(binary.BigEndian.Uint32(s.buffer[2:]))
	if size < headerSize || size > maxResponse || n > size {
		return nil, &lostError{fmt.Errorf("an answer of %d bytes says it has %d: this is no TPM", n, size)}
	}
	if _, err := io.ReadFull(s.conn, s.buffer[n:size]); err != nil {
		return nil, &lostError{err}
	}
	return bytes.Clone(s.buffer[:size]), nil
}

// limit returns how long command may take.
func (s *socket) limit(command []byte) time.Duration {
	if len(command) >= headerSize {
		switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
		case tpm2.TPMCCCreate, tpm2.TPMCCCreatePrimary, tpm2.TPMCCCreateLoaded:
			return keygenFactor * s.timeout
		}
	}
	return s.timeout
}

// Close closes the connection.
func (s *socket) Close() error { return s.conn.Close() }

// patient sends a command again while the TPM answers that it could not start it yet.
type patient struct {
	wire
	limit time.Duration
}

// Send sends one command and returns the answer.
func (p *patient) Send(command []byte) ([]byte, error) {
	deadline := time.Now().Add(p.limit)
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		answer, err := p.wire.Send(command)
		if err != nil {
			if _, ok := errors.AsType[*lostError](err); !ok {
				err = &lostError{err}
			}
			return nil, err
		}
		if len(answer) < headerSize {
			return nil, &lostError{fmt.Errorf("an answer of %d bytes: this is no TPM", len(answer))}
		}
		if !notStarted(tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:]))) || time.Now().After(deadline) {
			return answer, nil
		}
		time.Sleep(wait)
	}
}

// notStarted reports whether rc is a warning that the same command may succeed in a moment, unchanged.
func notStarted(rc tpm2.TPMRC) bool {
	switch rc {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
		return true
	default:
		return false
	}
}
