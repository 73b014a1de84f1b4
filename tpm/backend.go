package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// Backend is an open TPM. Its methods may be called from several goroutines at once.
type Backend struct {
	cfg    Config
	caps   holdfast.Capabilities
	serial string

	// line holds the one connection, nil when there is none: whoever takes it has the TPM until putting it back. Waiters
	// are served in the order they came.
	line   chan *conn
	closed chan struct{}
	close  sync.Once

	// refused holds the Names of keys of other programs whose use the TPM refused for want of an authValue. They are not
	// tried again: the TPM counts. Guarded by line.
	refused map[string]bool

	// next is where the search for a free persistent handle begins, so that plans made one after the other differ.
	// Guarded by line.
	next uint32
}

var (
	_ holdfast.Backend   = (*Backend)(nil)
	_ holdfast.Destroyer = (*Backend)(nil)
	_ holdfast.Planner   = (*Backend)(nil)
	_ holdfast.Loader    = (*Backend)(nil)
	_ holdfast.Sealer    = (*Backend)(nil)
	_ holdfast.Prober    = (*Backend)(nil)
)

// Open connects to the TPM and asks what it can do. It returns ErrInvalid for a configuration that cannot work,
// ErrUnavailable when there is no TPM or not the expected one, ErrAuth when the owner's authValue is refused.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	b := &Backend{
		cfg: cfg, line: make(chan *conn, 1), closed: make(chan struct{}),
		refused: make(map[string]bool), next: cfg.Handles.First,
	}
	b.line <- nil
	err = b.run(ctx, "open", "", healing, func(c *conn) error {
		b.serial = c.ek.serial
		var err error
		b.caps, err = c.capabilities()
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Capabilities returns what the TPM said it can do when it was opened. Device.Serial is a digest of the endorsement key.
func (b *Backend) Capabilities() holdfast.Capabilities { return b.caps }

// Probe does one command, on a new connection if the old one was lost.
func (b *Backend) Probe(ctx context.Context) error {
	return b.run(ctx, "probe", "", healing, func(c *conn) error {
		_, err := tpm2.GetRandom{BytesRequested: nonceSize}.Execute(c, c.session.secret(nil, false, true))
		return err
	})
}

// Close ends the use of the TPM in good order. It waits for a command in flight.
func (b *Backend) Close() error {
	var err error
	b.close.Do(func() {
		close(b.closed)
		if c := <-b.line; c != nil {
			if e := c.leave(); e != nil && !isLost(e) {
				err = translate("close", "", e)
			}
		}
	})
	return err
}

// How often run gives a command to the TPM.
const (
	once    = 1 // commands that show an authValue, whose failure counts
	healing = 2 // again on a new connection when the first was lost
)

// run calls f with the connection when it is this caller's turn, and connects before that where there is none. When f
// fails because the connection, the session or a loaded object is gone, it is called again, on a new connection; f may
// have been carried out by the TPM all the same, and has to bear that.
func (b *Backend) run(ctx context.Context, op string, ref holdfast.Ref, times int, f func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var c *conn
	select {
	case c = <-b.line:
	case <-ctx.Done():
		return ctx.Err()
	case <-b.closed:
		return closedError(op, ref)
	}
	defer func() { b.line <- c }()
	select {
	case <-b.closed:
		return closedError(op, ref)
	default:
	}
	var err error
	for range times {
		if c == nil {
			if c, err = b.connect(ctx); err != nil {
				c = nil
			}
		}
		if c != nil {
			if err = f(c); isLost(err) {
				_ = c.Close()
				c = nil
			}
		}
		if !isLost(err) || isTimeout(err) {
			break
		}
	}
	return translate(op, ref, err)
}

func closedError(op string, ref holdfast.Ref) error {
	e := holdfast.Errorf(holdfast.ErrUnavailable, op, "the backend was closed")
	e.Ref = ref
	return e
}

// connect makes a connection, to the TPM that the backend was opened with.
func (b *Backend) connect(ctx context.Context) (*conn, error) {
	c, err := connect(ctx, b.cfg)
	if err != nil {
		return nil, err
	}
	if b.serial != "" && c.ek.serial != b.serial {
		_ = c.Close()
		return nil, holdfast.Errorf(holdfast.ErrUnavailable, "", "another TPM (%s) answers at %s in place of %s: put the "+
			"old one back, or start again with the new one", c.ek.serial, b.cfg.Device, b.serial)
	}
	return c, nil
}

// capabilities asks the TPM what it is and which algorithms it has.
func (c *conn) capabilities() (holdfast.Capabilities, error) {
	caps := holdfast.Capabilities{Kind: "tpm2", DefaultResidence: holdfast.Wrapped}
	fixed, err := c.properties(tpm2.TPMPTFamilyIndicator, 64)
	if err != nil {
		return caps, err
	}
	caps.Device = holdfast.Device{
		Manufacturer: printable(fixed[tpm2.TPMPTManufacturer]),
		Model: printable(fixed[tpm2.TPMPTVendorString1], fixed[tpm2.TPMPTVendorString2],
			fixed[tpm2.TPMPTVendorString3], fixed[tpm2.TPMPTVendorString4]),
		Serial:   c.ek.serial,
		Firmware: firmware(fixed[tpm2.TPMPTFirmwareVersion1], fixed[tpm2.TPMPTFirmwareVersion2]),
	}
	for _, a := range holdfast.Algorithms() {
		ok, err := c.has(a)
		if err != nil {
			return caps, fmt.Errorf("ask for %s: %w", a, err)
		}
		if ok {
			caps.Algorithms = append(caps.Algorithms, holdfast.Support{Algorithm: a, Resident: true, Wrapped: true})
		}
	}
	return caps, nil
}

// has reports whether the TPM makes keys of algorithm a.
func (c *conn) has(a holdfast.Algorithm) (bool, error) {
	template, ok := template(a)
	if !ok {
		return false, nil
	}
	_, err := tpm2.TestParms{
		Parameters: tpm2.TPMTPublicParms{Type: template.Type, Parameters: template.Parameters},
	}.Execute(c)
	if _, lost := errors.AsType[*lostError](err); lost {
		return false, err
	}
	return err == nil, nil
}

// printable returns the text that a TPM packs into properties, four bytes each.
func printable(values ...uint32) string {
	var text []byte
	for _, v := range values {
		text = binary.BigEndian.AppendUint32(text, v)
	}
	return strings.Join(strings.FieldsFunc(string(text), func(r rune) bool { return r <= ' ' || r > '~' }), " ")
}

// firmware returns the firmware version in the notation most makers use.
func firmware(v1, v2 uint32) string {
	return fmt.Sprintf("%d.%d.%d.%d", v1>>16, v1&0xffff, v2>>16, v2&0xffff)
}
