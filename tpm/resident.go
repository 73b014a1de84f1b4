package tpm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// Key returns the key at a persistent handle. A ref without a serial is taken for this TPM.
func (b *Backend) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	const op = "find key"
	p, err := b.parseRef(ref)
	if err != nil {
		return nil, translate(op, ref, err)
	}
	if p.handle == 0 {
		return nil, translate(op, ref, holdfast.Errorf(holdfast.ErrNotFound, "",
			"a wrapped key is not in the TPM: load its blob"))
	}
	var k *key
	err = b.run(ctx, op, ref, healing, func(c *conn) error {
		var err error
		k, err = b.resident(c, tpm2.TPMHandle(p.handle))
		return err
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// parseRef reads a ref and checks that it is of this TPM.
func (b *Backend) parseRef(ref holdfast.Ref) (parsedRef, error) {
	p, err := parseRef(ref)
	if err == nil && p.serial != "" && b.serial != "" && p.serial != b.serial {
		err = holdfast.Errorf(holdfast.ErrInvalid, "", "the key is in another TPM: this one is %s", b.serial)
	}
	return p, err
}

// resident returns the key at a persistent handle.
func (b *Backend) resident(c *conn, handle tpm2.TPMHandle) (*key, error) {
	public, name, err := c.readPublic(handle)
	if err != nil {
		return nil, err
	}
	k, err := b.newKey(public)
	if err != nil {
		return nil, err
	}
	if !public.ObjectAttributes.UserWithAuth {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the key can only be used with a policy, which Holdfast does not know")
	}
	k.handle, k.ref = handle, residentRef(uint32(handle), b.serial)
	c.checked[handle] = string(name.Buffer)
	return k, nil
}

// Keys lists the keys at persistent handles. Storage, endorsement and attestation keys, which sign and agree on nothing of
// ours, are left out.
func (b *Backend) Keys(ctx context.Context) iter.Seq2[holdfast.Key, error] {
	return func(yield func(holdfast.Key, error) bool) {
		var handles []tpm2.TPMHandle
		err := b.run(ctx, "list keys", "", healing, func(c *conn) error {
			var err error
			handles, err = c.handles(firstPersistent, lastPersistent)
			return err
		})
		if err != nil {
			yield(nil, err)
			return
		}
		for _, handle := range handles {
			k, err := b.listed(ctx, handle)
			if k == nil && err == nil {
				continue
			}
			if err != nil && !yield(nil, err) || err == nil && !yield(k, nil) {
				return
			}
		}
	}
}

const (
	firstPersistent tpm2.TPMHandle = 0x81000000
	lastPersistent  tpm2.TPMHandle = 0x81ffffff
)

// listed returns the key at a handle, nil for one that is to be left out or went away in the meantime.
func (b *Backend) listed(ctx context.Context, handle tpm2.TPMHandle) (*key, error) {
	var k *key
	err := b.run(ctx, "list keys", residentRef(uint32(handle), b.serial), healing, func(c *conn) error {
		public, _, err := c.readPublic(handle)
		if errors.Is(err, tpm2.TPMRCHandle) {
			return nil
		}
		if err != nil || public.ObjectAttributes.Restricted {
			return err
		}
		k, err = b.resident(c, handle)
		return err
	})
	return k, err
}

// Plan chooses a free persistent handle for a resident key.
func (b *Backend) Plan(ctx context.Context, spec holdfast.KeySpec) (holdfast.KeySpec, holdfast.Ref, error) {
	const op = "plan"
	spec, residence, err := b.complete(spec)
	if err == nil && residence != holdfast.Resident {
		err = holdfast.Errorf(holdfast.ErrInvalid, "", "a wrapped key has no place to plan")
	}
	if err != nil {
		return spec, "", translate(op, "", err)
	}
	var handle uint32
	err = b.run(ctx, op, "", healing, func(c *conn) error {
		var err error
		handle, err = b.freeHandle(c, spec.Place)
		return err
	})
	if err != nil {
		return spec, "", err
	}
	spec.Residence = holdfast.Resident
	spec.Place = fmt.Sprintf("0x%08x", handle)
	return spec, residentRef(handle, b.serial), nil
}

// freeHandle returns the handle that place names, or else a free one of the range. It returns ErrExists or ErrBusy when
// there is none.
func (b *Backend) freeHandle(c *conn, place string) (uint32, error) {
	handles, err := c.handles(tpm2.TPMHandle(b.cfg.Handles.First), tpm2.TPMHandle(b.cfg.Handles.Last))
	if err != nil {
		return 0, err
	}
	taken := make(map[uint32]bool, len(handles))
	for _, handle := range handles {
		taken[uint32(handle)] = true
	}
	if place != "" {
		handle, err := parseHandle(place)
		if err == nil && taken[handle] {
			err = takenError(handle)
		}
		return handle, err
	}
	size := b.cfg.Handles.Last - b.cfg.Handles.First + 1
	for i := range size {
		handle := b.cfg.Handles.First + (b.next-b.cfg.Handles.First+i)%size
		if !taken[handle] {
			b.next = handle + 1
			return handle, nil
		}
	}
	return 0, holdfast.Errorf(holdfast.ErrBusy, "",
		"all %d handles from 0x%08x to 0x%08x are taken: destroy a key, or make "+
			"wrapped ones", size, b.cfg.Handles.First, b.cfg.Handles.Last)
}

func takenError(handle uint32) error {
	return holdfast.Errorf(holdfast.ErrExists, "",
		"an object is at the handle 0x%08x already: choose another, or none", handle)
}

// Destroy removes the key at a persistent handle from the TPM. Of a wrapped key there is nothing in the TPM to destroy
// but a copy that may be loaded: deleting its blob destroys it.
func (b *Backend) Destroy(ctx context.Context, ref holdfast.Ref) error {
	const op = "destroy"
	p, err := b.parseRef(ref)
	if err != nil {
		return translate(op, ref, err)
	}
	asked := false // the TPM may have done it when the connection was lost
	return b.run(ctx, op, ref, healing, func(c *conn) error {
		if p.handle == 0 {
			if name, err := hex.DecodeString(p.name); err == nil {
				if err := c.forget(name); err != nil {
					return err
				}
			}
			return holdfast.Errorf(holdfast.ErrNotFound, "", "nothing of a wrapped key is in the TPM: delete its blob")
		}
		return c.destroy(ctx, tpm2.TPMHandle(p.handle), &asked)
	})
}

func (c *conn) destroy(ctx context.Context, handle tpm2.TPMHandle, asked *bool) error {
	public, name, err := c.readPublic(handle)
	if *asked && errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		return err
	}
	if public.ObjectAttributes.Restricted {
		return holdfast.Errorf(holdfast.ErrUnsupported, "",
			"a storage, endorsement or attestation key is at this handle, on which "+
				"other programs may depend: remove it with tpm2_evictcontrol if you are sure")
	}
	delete(c.checked, handle)
	*asked = true
	if err := c.evictControl(ctx, tpm2.NamedHandle{Handle: handle, Name: name}, handle); err != nil {
		return err
	}
	_, _, err = c.readPublic(handle)
	switch {
	case err == nil:
		return holdfast.Errorf(holdfast.ErrInternal, "", "the TPM says that it removed the key, and still has it")
	case errors.Is(err, tpm2.TPMRCHandle):
		return nil
	default:
		return err
	}
}

// evictControl makes a loaded object persistent, or removes a persistent one.
func (c *conn) evictControl(ctx context.Context, object tpm2.NamedHandle, persistent tpm2.TPMHandle) error {
	auth, err := c.hierarchyAuth(ctx, tpm2.TPMRHOwner)
	if err != nil {
		return err
	}
	if err := c.room(1); err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: auth},
		ObjectHandle:     object,
		PersistentHandle: persistent,
	}.Execute(c)
	return hierarchyError(tpm2.TPMRHOwner, err)
}

// Load returns the wrapped key in a blob. The TPM is touched at first use.
func (b *Backend) Load(ctx context.Context, data []byte) (holdfast.Key, error) {
	const op = "load"
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	blob, err := parseBlob(data)
	if err != nil {
		return nil, translate(op, "", err)
	}
	k, err := b.keyOfBlob(blob)
	if err != nil {
		return nil, translate(op, "", err)
	}
	if a := k.area.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return nil, translate(op, k.ref, blobError("its key can leave the TPM, or was brought into it"))
	}
	return wrappedKey{k}, nil
}
