package tpm

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// key is a key in the TPM: resident under a persistent handle, or wrapped.
type key struct {
	backend   *Backend
	ref       holdfast.Ref
	algorithm holdfast.Algorithm
	public    crypto.PublicKey
	area      *tpm2.TPMTPublic // the public area
	name      tpm2.TPM2BName

	handle tpm2.TPMHandle // of a resident key, else 0
	blob   *keyBlob       // of a wrapped key, else nil
}

// wrappedKey is a key that is kept outside.
type wrappedKey struct {
	*key
}

var (
	_ holdfast.Key        = (*key)(nil)
	_ holdfast.Agreer     = (*key)(nil)
	_ holdfast.Attester   = (*key)(nil)
	_ holdfast.WrappedKey = wrappedKey{}
)

// newKey returns a key of the given public area, which need not be one that Holdfast made.
func (b *Backend) newKey(public *tpm2.TPMTPublic) (*key, error) {
	a, pub, err := algorithmOf(public)
	if err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, err
	}
	return &key{backend: b, algorithm: a, public: pub, area: public, name: *name}, nil
}

// Ref returns the key's name.
func (k *key) Ref() holdfast.Ref { return k.ref }

// Algorithm returns the key's algorithm.
func (k *key) Algorithm() holdfast.Algorithm { return k.algorithm }

// Public returns the public half.
func (k *key) Public() crypto.PublicKey { return k.public }

// Blob returns the wrapped key: see PEM for the format.
func (k wrappedKey) Blob() []byte { return k.blob.encoded }

// Sign signs a digest.
func (k *key) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.algorithm.CheckInput(digest, opts); err != nil {
		return nil, translate("sign", k.ref, err)
	}
	info, _ := infoOf(k.algorithm)
	parameters := signParameters(info, digest)
	var answer []byte
	err := k.backend.run(ctx, "sign", k.ref, healing, func(c *conn) error {
		var err error
		answer, err = k.sign(ctx, c, parameters)
		return err
	})
	if err != nil {
		return nil, err
	}
	signature, err := decodeSignature(answer)
	return signature, translate("sign", k.ref, err)
}

// sign has the TPM sign, and returns the TPMT_SIGNATURE.
func (k *key) sign(ctx context.Context, c *conn, parameters []byte) ([]byte, error) {
	handle, err := k.use(ctx, c)
	if err != nil {
		return nil, err
	}
	answer, err := c.sign(handle, parameters)
	return answer, k.noteRefusal(err)
}

// use returns the key's handle, and loads the key if it is not in the TPM.
func (k *key) use(ctx context.Context, c *conn) (tpm2.NamedHandle, error) {
	if k.backend.refused[string(k.name.Buffer)] {
		return tpm2.NamedHandle{}, holdfast.Errorf(holdfast.ErrAuth, "", "the key has an authValue, which was refused once "+
			"and is not tried again: the TPM counts failures")
	}
	if k.blob != nil {
		return c.load(ctx, &k.blob.object)
	}
	if err := c.room(1); err != nil { // which the TPM takes itself to use a persistent object
		return tpm2.NamedHandle{}, err
	}
	// A persistent object is looked at once per connection: someone may have put another in its place.
	name, ok := c.checked[k.handle]
	if !ok {
		_, n, err := c.readPublic(k.handle)
		if err != nil {
			return tpm2.NamedHandle{}, err
		}
		name = string(n.Buffer)
		c.checked[k.handle] = name
	}
	if name != string(k.name.Buffer) {
		return tpm2.NamedHandle{}, holdfast.Errorf(holdfast.ErrNotFound, "",
			"another key is at the handle %#x now", uint32(k.handle))
	}
	return tpm2.NamedHandle{Handle: k.handle, Name: k.name}, nil
}

// noteRefusal remembers that the key has an authValue that is not known.
func (k *key) noteRefusal(err error) error {
	if errors.Is(err, tpm2.TPMRCAuthFail) {
		k.backend.refused[string(k.name.Buffer)] = true
	}
	return err
}

// Agreement returns the key for agreements that are made in the TPM, under ctx.
func (k *key) Agreement(ctx context.Context) (ecdh.KeyExchanger, error) {
	public, ok := k.public.(*ecdh.PublicKey)
	if !ok {
		return nil, translate("agree", k.ref, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"%s keys do not agree", k.algorithm))
	}
	return agreement{ctx, k, public}, nil
}

// agreement is a key under a context, which ecdh.KeyExchanger has no room for.
type agreement struct {
	ctx    context.Context
	key    *key
	public *ecdh.PublicKey
}

// PublicKey returns the public half.
func (a agreement) PublicKey() *ecdh.PublicKey { return a.public }

// Curve returns the key's curve.
func (a agreement) Curve() ecdh.Curve { return a.public.Curve() }

// ECDH returns the x coordinate of the product of the key and remote's point, of the length of the curve's field. It
// returns ErrInvalid for a key of another curve.
func (a agreement) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	k := a.key
	if remote == nil || remote.Curve() != a.Curve() {
		return nil, translate("agree", k.ref, holdfast.Errorf(holdfast.ErrInvalid, "",
			"the other key is not on the curve of %s",
			k.algorithm))
	}
	point := remote.Bytes()[1:]
	var z []byte
	err := k.backend.run(a.ctx, "agree", k.ref, healing, func(c *conn) error {
		var err error
		z, err = k.agree(a.ctx, c, point[:len(point)/2], point[len(point)/2:])
		return err
	})
	return z, err
}

func (k *key) agree(ctx context.Context, c *conn, x, y []byte) ([]byte, error) {
	handle, err := k.use(ctx, c)
	if err != nil {
		return nil, err
	}
	answer, err := tpm2.ECDHZGen{
		KeyHandle: tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: c.session.secret(nil, false, true)},
		InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y},
		}),
	}.Execute(c)
	if err != nil {
		return nil, k.noteRefusal(err)
	}
	point, err := answer.OutPoint.Contents()
	if err != nil {
		return nil, err
	}
	if len(point.X.Buffer) > len(x) {
		return nil, fmt.Errorf("the TPM agreed on %d bytes for %d", len(point.X.Buffer), len(x))
	}
	z := make([]byte, len(x))
	copy(z[len(x)-len(point.X.Buffer):], point.X.Buffer)
	return z, nil
}
