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

	jobs   chan *job     // unbuffered: who sends waits in line, and is served in the order they came
	closed chan struct{} // closed by Close
	ended  chan error    // what the end of work returned
	close  sync.Once

	// The fields below belong to the goroutine that does the jobs.

	conn *conn // nil when there is no connection

	// refused holds the Names of keys of other programs whose use the TPM refused for want of an authValue. They are not
	// tried again: the TPM counts.
	refused map[string]bool

	// next is where the search for a free persistent handle begins, so that plans made one after the other differ.
	next uint32
}

// job is one operation on the TPM.
type job struct {
	ctx   context.Context // of the operation, which is waited for by its caller
	times int
	f     func(*conn) error
	done  chan error
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
		cfg: cfg, jobs: make(chan *job), closed: make(chan struct{}), ended: make(chan error, 1),
		refused: make(map[string]bool), next: cfg.Handles.First,
	}
	go b.work()
	err = b.run(ctx, "open", "", healing, func(c *conn) error {
		var err error
		b.caps, err = c.capabilities()
		b.serial = c.ek.serial
		return err
	})
	if err != nil {
		_ = b.Close()
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
		err = translate("close", "", <-b.ended)
	})
	return err
}

// How often run gives a command to the TPM.
const (
	once    = 1 // commands that show an authValue, whose failure counts
	healing = 2 // again on a new connection when the first was lost
)

// run has f called with the connection when it is this caller's turn. When f fails because the connection, the session or
// a loaded object is gone, it is called again, on a new connection; the TPM may have carried it out all the same, and f
// has to bear that. What f writes may be read when run has returned.
func (b *Backend) run(ctx context.Context, op string, ref holdfast.Ref, times int, f func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{ctx: ctx, times: times, f: f, done: make(chan error, 1)}
	select {
	case b.jobs <- j:
		return translate(op, ref, <-j.done)
	case <-ctx.Done():
		return ctx.Err()
	case <-b.closed:
		return closedError(op, ref)
	}
}

// work does the jobs, one after the other. A goroutine of its own has the next command at the TPM without waiting for
// the next caller to wake up.
func (b *Backend) work() {
	for {
		select {
		case <-b.closed:
			var err error
			if b.conn != nil {
				if err = b.conn.leave(); isLost(err) {
					err = nil
				}
			}
			b.ended <- err
			return
		default:
		}
		select {
		case <-b.closed:
		case j := <-b.jobs:
			j.done <- b.do(j)
		}
	}
}

// do does one job, on a new connection where there is none or the old one was lost.
func (b *Backend) do(j *job) error {
	var err error
	for range j.times {
		if b.conn == nil {
			b.conn, err = b.connect(j.ctx)
		}
		if b.conn != nil {
			if err = j.f(b.conn); isLost(err) {
				_ = b.conn.Close()
				b.conn = nil
			}
		}
		if !isLost(err) || isTimeout(err) {
			break
		}
	}
	return err
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
