package tpm

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// Generate makes a key under the storage root key, and moves it to a persistent handle when it is to be resident. The
// TPM has no room for labels; KeySpec.ID becomes part of the certified creation of a wrapped key.
func (b *Backend) Generate(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	const op = "generate"
	spec, residence, err := b.complete(spec)
	if err != nil {
		return nil, translate(op, "", err)
	}
	g := &generation{backend: b, spec: spec, resident: residence == holdfast.Resident}
	if err := b.run(ctx, op, "", healing, func(c *conn) error { return g.run(ctx, c) }); err != nil {
		return nil, err
	}
	if g.resident {
		return g.key, nil
	}
	return wrappedKey{g.key}, nil
}

// complete checks spec and fills in its identifier and residence.
func (b *Backend) complete(spec holdfast.KeySpec) (holdfast.KeySpec, holdfast.Residence, error) {
	if err := b.caps.CheckSpec(spec); err != nil {
		return spec, 0, err
	}
	if spec.PIN != holdfast.PINDefault && spec.PIN != holdfast.PINNever ||
		spec.Touch != holdfast.TouchDefault && spec.Touch != holdfast.TouchNever {
		return spec, 0, holdfast.Errorf(holdfast.ErrUnsupported, "", "a TPM asks for no PIN (%s) and no touch (%s); leave "+
			"them out", spec.PIN, spec.Touch)
	}
	residence := spec.Residence
	if residence == holdfast.ResidenceDefault {
		residence = b.caps.DefaultResidence
	}
	if spec.Place != "" {
		residence = holdfast.Resident
		handle, err := parseHandle(spec.Place)
		if err != nil || !b.cfg.Handles.contains(handle) {
			return spec, 0, holdfast.Errorf(holdfast.ErrInvalid, "", "%q is no place for a key: choose a handle from 0x%08x to "+
				"0x%08x, or leave it out", spec.Place, b.cfg.Handles.First, b.cfg.Handles.Last)
		}
	}
	if spec.ID == nil {
		spec.ID = make([]byte, 16)
		if _, err := rand.Read(spec.ID); err != nil {
			return spec, 0, err
		}
	}
	return spec, residence, nil
}

// generation is one key in the making. Its run may be repeated after the connection was lost, and goes on where it was.
type generation struct {
	backend  *Backend
	spec     holdfast.KeySpec
	resident bool
	blob     *keyBlob // once the key was made
	key      *key     // once it was tested
	handle   uint32   // where it is to be resident
}

func (g *generation) run(ctx context.Context, c *conn) error {
	if g.resident && g.handle == 0 {
		handle, err := g.backend.freeHandle(c, g.spec.Place)
		if err != nil {
			return err
		}
		g.handle = handle
	}
	if g.blob == nil {
		blob, err := c.create(g.spec)
		if err != nil {
			return err
		}
		g.blob = blob
	}
	if g.key == nil {
		k, err := g.backend.keyOfBlob(g.blob)
		if err != nil {
			return err
		}
		if err := k.test(ctx, c); err != nil {
			return errors.Join(err, c.forget(k.name.Buffer))
		}
		g.key = k
	}
	if !g.resident {
		return nil
	}
	return g.persist(ctx, c)
}

// create makes a key and returns it wrapped.
func (c *conn) create(spec holdfast.KeySpec) (*keyBlob, error) {
	public, ok := template(spec.Algorithm)
	if !ok {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "no TPM makes %s keys", spec.Algorithm)
	}
	if err := c.room(1 + c.srk.slot()); err != nil {
		return nil, err
	}
	answer, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: c.srk.Handle, Name: c.srk.Name, Auth: c.session.auth(nil)},
		InPublic:     tpm2.New2B(public),
		OutsideInfo:  tpm2.TPM2BData{Buffer: spec.ID},
	}.Execute(c)
	if err != nil {
		return nil, err
	}
	// Read back what was made: the same as was asked for, above all that it cannot leave.
	made, err := answer.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	if !attestation.OfTemplate(made, &public) {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the TPM made another key than it was asked for (attributes %+v)",
			made.ObjectAttributes)
	}
	return newBlob(c.srk, answer)
}

// keyOfBlob returns the wrapped key in a blob.
func (b *Backend) keyOfBlob(blob *keyBlob) (*key, error) {
	area, err := blob.public.Contents()
	if err != nil {
		return nil, err
	}
	k, err := b.newKey(area)
	if err != nil {
		return nil, err
	}
	k.blob = blob
	k.ref = wrappedRef(k.name)
	return k, nil
}

// test uses the key once and checks the result with the standard library.
func (k *key) test(ctx context.Context, c *conn) error {
	if public, ok := k.public.(*ecdh.PublicKey); ok {
		return k.testAgreement(ctx, c, public)
	}
	digest := k.algorithm.Digest([]byte("Holdfast's test signature with a new key"))
	info, _ := infoOf(k.algorithm)
	answer, err := k.sign(ctx, c, signParameters(info, digest))
	if err != nil {
		return err
	}
	signature, err := decodeSignature(answer)
	if err != nil {
		return err
	}
	err = holdfast.Verify(k.algorithm, k.public, digest, signature)
	if err != nil && k.algorithm.JOSE() == "PS256" {
		// The TPM Library leaves the salt's length to the chip: that of the hash, or the longest possible.
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: k.algorithm.Hash()}
		if rsa.VerifyPSS(k.public.(*rsa.PublicKey), k.algorithm.Hash(), digest, signature, options) == nil {
			return holdfast.Errorf(holdfast.ErrUnsupported, "", "this TPM makes RSASSA-PSS signatures with a salt longer than "+
				"%s has: use another algorithm", k.algorithm)
		}
	}
	return err
}

func (k *key) testAgreement(ctx context.Context, c *conn, public *ecdh.PublicKey) error {
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := peer.ECDH(public)
	if err != nil {
		return err
	}
	point := peer.PublicKey().Bytes()[1:]
	got, err := k.agree(ctx, c, point[:len(point)/2], point[len(point)/2:])
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the TPM agrees on another secret than the standard library")
	}
	return nil
}

// persist moves the key to its handle, where it may be already if the connection was lost just after.
func (g *generation) persist(ctx context.Context, c *conn) error {
	persistent := tpm2.TPMHandle(g.handle)
	_, name, err := c.readPublic(persistent)
	switch {
	case err == nil && !bytes.Equal(name.Buffer, g.key.name.Buffer):
		return takenError(g.handle)
	case err != nil && !errors.Is(err, tpm2.TPMRCHandle):
		return err
	case err != nil:
		if err := g.evict(ctx, c, persistent); err != nil {
			return err
		}
		if _, name, err = c.readPublic(persistent); err != nil {
			return err
		}
		if !bytes.Equal(name.Buffer, g.key.name.Buffer) {
			return takenError(g.handle) // by another program, in between
		}
	}
	k := *g.key
	k.blob, k.handle, k.ref = nil, persistent, residentRef(g.handle, g.backend.serial)
	if err := c.forget(k.name.Buffer); err != nil {
		return err
	}
	g.key = &k
	return nil
}

// evict gives the loaded key a persistent handle.
func (g *generation) evict(ctx context.Context, c *conn, persistent tpm2.TPMHandle) error {
	loaded, err := c.load(ctx, &g.blob.object)
	if err != nil {
		return err
	}
	return c.evictControl(ctx, loaded, persistent)
}
