package tpm

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"holdfast"
)

// Config says which TPM to use, and how. Device is required.
type Config struct {
	// Device is the TPM: "/dev/tpmrm0", the kernel's resource manager, where other programs use the TPM as well;
	// "/dev/tpm0", the chip alone; or "unix:" and the path of the socket of a swtpm. On the latter two the backend is
	// the only user: it flushes what it finds loaded, sends TPM2_Startup where that is missing and TPM2_Shutdown at the end.
	Device string

	// ExpectedEK pins the backend to one TPM: the Capabilities().Device.Serial of that TPM, 32 hexadecimal digits. The
	// TPM then has to prove to hold that endorsement key whenever the connection is made. Empty takes any TPM.
	ExpectedEK string

	// OwnerAuth returns the authValue of the owner hierarchy, which is asked for resident keys and, where no SRK is
	// persistent, on every connection. Nil means that it is empty, as it usually is.
	OwnerAuth func(context.Context) (holdfast.Secret, error)

	// EndorsementAuth returns the authValue of the endorsement hierarchy, for attestation. Nil means that it is empty.
	EndorsementAuth func(context.Context) (holdfast.Secret, error)

	// Handles is the range of persistent handles that keys are placed in; zero means 0x81008000 to 0x810080FF, in
	// the part of the owner's range that the TCG leaves to applications.
	Handles HandleRange

	// CommandTimeout bounds the wait for the answer to one command on a socket, ten times that for commands that make
	// keys. Zero means 30 seconds. The kernel has its own limits on a device.
	CommandTimeout time.Duration

	// wrapTransport lets a test see the bytes on the wire.
	wrapTransport func(wire) wire
}

// HandleRange is a range of persistent handles, both ends included.
type HandleRange struct {
	First, Last uint32
}

const (
	defaultFirstHandle = 0x81008000
	defaultLastHandle  = 0x810080ff
	ownerFirstHandle   = 0x81000000 // TCG Registry of Reserved TPM 2.0 Handles, section 2.3.1: the owner's range
	ownerLastHandle    = 0x817fffff

	defaultCommandTimeout = 30 * time.Second
	keygenFactor          = 10 // how much longer making a key may take
)

// serialSize is the length of a serial in bytes.
const serialSize = 16

// normalize fills in the defaults and returns ErrInvalid for what cannot work.
func (c Config) normalize() (Config, error) {
	path, socket := strings.CutPrefix(c.Device, "unix:")
	if path == "" || !socket && !strings.HasPrefix(path, "/") {
		return c, holdfast.Errorf(holdfast.ErrInvalid, "open",
			"%q is no TPM: name /dev/tpmrm0, /dev/tpm0 or unix:PATH of a swtpm socket", c.Device)
	}
	if c.ExpectedEK != "" {
		if b, err := hex.DecodeString(c.ExpectedEK); err != nil || len(b) != serialSize {
			return c, holdfast.Errorf(holdfast.ErrInvalid, "open",
				"the expected endorsement key %q is not the serial of a TPM: %d hexadecimal digits", c.ExpectedEK, 2*serialSize)
		}
		c.ExpectedEK = strings.ToLower(c.ExpectedEK)
	}
	if c.Handles == (HandleRange{}) {
		c.Handles = HandleRange{defaultFirstHandle, defaultLastHandle}
	}
	if c.Handles.First > c.Handles.Last || c.Handles.First < ownerFirstHandle || c.Handles.Last > ownerLastHandle {
		return c, holdfast.Errorf(holdfast.ErrInvalid, "open", "%#x to %#x is no range of persistent handles of the owner: "+
			"choose one within %#x to %#x", c.Handles.First, c.Handles.Last, uint32(ownerFirstHandle), uint32(ownerLastHandle))
	}
	if c.CommandTimeout < 0 {
		return c, holdfast.Errorf(holdfast.ErrInvalid, "open", "a command timeout of %s is negative", c.CommandTimeout)
	}
	if c.CommandTimeout == 0 {
		c.CommandTimeout = defaultCommandTimeout
	}
	return c, nil
}

// contains reports whether handle is in the range.
func (r HandleRange) contains(handle uint32) bool { return r.First <= handle && handle <= r.Last }
