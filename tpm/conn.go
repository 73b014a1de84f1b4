package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// conn is one connection to the TPM, with everything that is lost when the TPM is reset. It belongs to the
// goroutine that does the backend's jobs, see Backend.work.
type conn struct {
	wire
	cfg     Config
	direct  bool // the backend is the TPM's only user
	session *session
	srk     storageKey
	slots   slots
	ek      endorsement
	ak      storageKey                // the attestation key, once it was made; its handle is good while slots has it
	checked map[tpm2.TPMHandle]string // the Names of persistent objects that were read on this connection
}

// storageKey is a loaded parent of keys.
type storageKey struct {
	tpm2.NamedHandle
	public     *tpm2.TPMTPublic
	persistent bool
}

// connect opens the device, makes the TPM ready and begins a session.
func connect(ctx context.Context, cfg Config) (*conn, error) {
	w, direct, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c := &conn{wire: w, cfg: cfg, direct: direct, checked: make(map[tpm2.TPMHandle]string)}
	if err := c.prepare(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) prepare(ctx context.Context) error {
	if err := c.startup(); err != nil {
		return fmt.Errorf("start the TPM: %w", err)
	}
	if c.direct {
		if err := c.flushLeftovers(); err != nil {
			return fmt.Errorf("flush what a former user left: %w", err)
		}
	}
	if err := c.countSlots(); err != nil {
		return err
	}
	if err := c.identify(ctx); err != nil {
		return fmt.Errorf("read the endorsement key: %w", err)
	}
	if c.cfg.ExpectedEK != "" {
		if err := c.proveEK(ctx); err != nil {
			return err
		}
	}
	if err := c.findSRK(ctx); err != nil {
		return fmt.Errorf("find the storage root key: %w", err)
	}
	if c.session == nil {
		var err error
		if c.session, err = startSession(c, c.srk.Handle, c.srk.public); err != nil {
			return fmt.Errorf("begin a session: %w", err)
		}
	}
	return nil
}

// startup sends TPM2_Startup to a TPM that nobody has started yet.
func (c *conn) startup() error {
	_, err := c.property(tpm2.TPMPTHRTransientAvail)
	if c.direct && errors.Is(err, tpm2.TPMRCInitialize) {
		_, err = tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(c)
	}
	return err
}

// flushLeftovers takes out of the TPM what a user that did not end in good order had loaded: objects and sessions. Without
// a resource manager they would stay there, and after a few crashes the TPM would be full.
func (c *conn) flushLeftovers() error {
	for _, first := range []tpm2.TPMHandle{0x80000000, 0x02000000, 0x03000000} { // objects, loaded and saved sessions
		handles, err := c.handles(first, first|0x00ffffff)
		if err != nil {
			return err
		}
		for _, handle := range handles {
			if err := c.flush(handle); err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
				return err
			}
		}
	}
	return nil
}

const (
	minSlots = 3 // PC Client Platform TPM Profile, section 5.5: TPM_PT_HR_TRANSIENT_MIN
	maxSlots = 3 // what the kernel's resource manager keeps for one user, and most chips have
)

// countSlots asks how many transient objects fit. It is called while none is loaded.
func (c *conn) countSlots() error {
	n, err := c.property(tpm2.TPMPTHRTransientAvail)
	if err != nil {
		return err
	}
	if n < minSlots {
		return holdfast.Errorf(holdfast.ErrBusy, "", "the TPM has room for %d more objects, and %d are needed: another "+
			"program uses it too; use /dev/tpmrm0", n, minSlots)
	}
	c.slots.capacity = min(int(n), maxSlots)
	return nil
}

// property returns the value of one TPM_PT.
func (c *conn) property(property tpm2.TPMPT) (uint32, error) {
	properties, err := c.properties(property, 1)
	if err != nil {
		return 0, err
	}
	return properties[property], nil
}

// properties returns the values of count properties from first on.
func (c *conn) properties(first tpm2.TPMPT, count uint32) (map[tpm2.TPMPT]uint32, error) {
	answer, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapTPMProperties, Property: uint32(first), PropertyCount: count,
	}.Execute(c)
	if err != nil {
		return nil, err
	}
	list, err := answer.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, err
	}
	values := make(map[tpm2.TPMPT]uint32, len(list.TPMProperty))
	for _, p := range list.TPMProperty {
		values[p.Property] = p.Value
	}
	return values, nil
}

// handles lists the handles from first to last that are in use. Saved sessions, asked for as 0x03…, are listed with the
// handles they had when they were loaded.
func (c *conn) handles(first, last tpm2.TPMHandle) ([]tpm2.TPMHandle, error) {
	var list []tpm2.TPMHandle
	for {
		answer, err := tpm2.GetCapability{
			Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: 64,
		}.Execute(c)
		if err != nil {
			return nil, err
		}
		got, err := answer.CapabilityData.Data.Handles()
		if err != nil {
			return nil, err
		}
		for _, handle := range got.Handle {
			if handle > last {
				return list, nil
			}
			list = append(list, handle)
			first = handle + 1
		}
		if !answer.MoreData || len(got.Handle) == 0 {
			return list, nil
		}
	}
}

// flush takes a transient object or session out of the TPM.
func (c *conn) flush(handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(c)
	return err
}

// room makes room for n more objects.
func (c *conn) room(n int) error {
	for _, l := range c.slots.evict(n) {
		if err := c.flush(l.handle); err != nil {
			return fmt.Errorf("flush an object: %w", err)
		}
	}
	return nil
}

// object is what a transient object is loaded of.
type object struct {
	parentName []byte
	public     tpm2.TPM2BPublic
	private    tpm2.TPM2BPrivate
	name       tpm2.TPM2BName
}

// id identifies the object among the loaded ones. It begins with the Name, and covers the private half as well: an edited
// blob must not pass because the right one is loaded.
func (o *object) id() string {
	h := sha256.New()
	h.Write(o.parentName)
	h.Write(o.private.Buffer)
	return string(h.Sum(bytes.Clone(o.name.Buffer)))
}

// load returns the handle of an object, which it loads if it is not in the TPM.
func (c *conn) load(ctx context.Context, o *object) (tpm2.NamedHandle, error) {
	id := o.id()
	if handle, ok := c.slots.find(id); ok {
		return tpm2.NamedHandle{Handle: handle, Name: o.name}, nil
	}
	parent, done, err := c.parent(ctx, o.parentName)
	if err != nil {
		return tpm2.NamedHandle{}, err
	}
	defer done()
	if err := c.room(1 + parent.slot()); err != nil {
		return tpm2.NamedHandle{}, err
	}
	answer, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: c.session.auth(nil)},
		InPrivate:    o.private,
		InPublic:     o.public,
	}.Execute(c)
	if err != nil {
		return tpm2.NamedHandle{}, fmt.Errorf("load: %w", err)
	}
	if !bytes.Equal(answer.Name.Buffer, o.name.Buffer) {
		return tpm2.NamedHandle{}, errors.Join(errForged, c.flush(answer.ObjectHandle))
	}
	c.slots.add(id, answer.ObjectHandle)
	return tpm2.NamedHandle{Handle: answer.ObjectHandle, Name: o.name}, nil
}

// slot returns how many slots the TPM itself takes to use the key: a persistent object is loaded for each command.
func (k storageKey) slot() int {
	if k.persistent {
		return 1
	}
	return 0
}

// forget takes the objects of a Name out of the TPM, if they are loaded.
func (c *conn) forget(name []byte) error {
	var err error
	c.slots.loaded = slices.DeleteFunc(c.slots.loaded, func(l loaded) bool {
		if !strings.HasPrefix(l.id, string(name)) {
			return false
		}
		err = errors.Join(err, c.flush(l.handle))
		return true
	})
	return err
}

// leave ends the use of the TPM in good order: nothing stays loaded, and a TPM without a resource manager is told that
// power may go, so that its next start does not count as an attack on a DA-protected object.
func (c *conn) leave() error {
	var err error
	for _, l := range c.slots.loaded {
		err = errors.Join(err, c.flush(l.handle))
	}
	if !c.srk.persistent {
		err = errors.Join(err, c.flush(c.srk.Handle))
	}
	err = errors.Join(err, c.flush(c.session.handle))
	if c.direct {
		err = errors.Join(err, c.settle())
	}
	return errors.Join(err, c.Close())
}

// settle tells the TPM that power may go now.
func (c *conn) settle() error {
	_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(c)
	return err
}
