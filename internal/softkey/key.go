//lint:file-ignore SA1019 crypto/ecdsa has no other way to hold a secp256k1 key than the curve interface and X and Y.

package softkey

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"holdfast"
)

// newMaterial makes a private key: PKCS#8, or the bare scalar or key where that has no form for it.
func newMaterial(spec holdfast.KeySpec) (material, error) {
	m := material{Algorithm: spec.Algorithm, Label: spec.Label}
	var private any
	var err error
	switch a := spec.Algorithm; a {
	case holdfast.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case holdfast.ES384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case holdfast.ES512:
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case holdfast.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case holdfast.ECDHP256, holdfast.ECDHP384, holdfast.ECDHX25519:
		var k *ecdh.PrivateKey
		if k, err = curveOf(a).GenerateKey(rand.Reader); err == nil {
			m.Private = k.Bytes()
		}
		return m, err
	case holdfast.ES256K:
		var k *secp256k1.PrivateKey
		if k, err = secp256k1.GeneratePrivateKey(); err == nil {
			m.Private = k.Serialize()
		}
		return m, err
	case holdfast.A256GCM:
		m.Private = make([]byte, 32)
		_, err = rand.Read(m.Private)
		return m, err
	default:
		private, err = rsa.GenerateKey(rand.Reader, a.Bits())
	}
	if err != nil {
		return m, err
	}
	m.Private, err = x509.MarshalPKCS8PrivateKey(private)
	return m, err
}

func curveOf(a holdfast.Algorithm) ecdh.Curve {
	switch a {
	case holdfast.ECDHP256:
		return ecdh.P256()
	case holdfast.ECDHP384:
		return ecdh.P384()
	default:
		return ecdh.X25519()
	}
}

// key is one key, resident when blob is nil.
type key struct {
	backend *Backend
	ref     holdfast.Ref
	alg     holdfast.Algorithm
	private any // crypto.Signer, *ecdh.PrivateKey, *secp256k1.PrivateKey or []byte
	public  crypto.PublicKey
	blob    []byte
}

func (b *Backend) key(ref holdfast.Ref, m material, blob []byte) (holdfast.Key, error) {
	k := &key{backend: b, ref: ref, alg: m.Algorithm, blob: blob}
	switch m.Algorithm {
	case holdfast.ECDHP256, holdfast.ECDHP384, holdfast.ECDHX25519:
		private, err := curveOf(m.Algorithm).NewPrivateKey(m.Private)
		if err != nil {
			return nil, err
		}
		k.private, k.public = private, private.PublicKey()
	case holdfast.ES256K:
		private := secp256k1.PrivKeyFromBytes(m.Private)
		p := private.PubKey()
		k.private = private
		k.public = &ecdsa.PublicKey{Curve: secp256k1.S256(), X: new(big.Int).Set(p.X()), Y: new(big.Int).Set(p.Y())}
	case holdfast.A256GCM:
		k.private = m.Private
	default:
		private, err := x509.ParsePKCS8PrivateKey(m.Private)
		if err != nil {
			return nil, err
		}
		k.private, k.public = private, private.(crypto.Signer).Public()
	}
	if blob != nil {
		return wrappedKey{k}, nil
	}
	return k, nil
}

func (k *key) Ref() holdfast.Ref             { return k.ref }
func (k *key) Algorithm() holdfast.Algorithm { return k.alg }
func (k *key) Public() crypto.PublicKey      { return k.public }

// enter starts a command with this key, which a resident key has to be there for.
func (k *key) enter(ctx context.Context, op string) error {
	if err := k.backend.enter(ctx, op); err != nil {
		return err
	}
	if _, ok := k.backend.device.Keys[k.ref]; !ok && k.blob == nil {
		k.backend.mu.Unlock()
		return &holdfast.Error{Op: op, Ref: k.ref, Code: holdfast.ErrNotFound}
	}
	return nil
}

// Sign signs.
func (k *key) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.alg.CheckInput(digest, opts); err != nil {
		return nil, err
	}
	if err := k.enter(ctx, "sign"); err != nil {
		return nil, err
	}
	k.backend.mu.Unlock()
	if private, ok := k.private.(*secp256k1.PrivateKey); ok {
		return k1ecdsa.Sign(private, digest).Serialize(), nil
	}
	if opts == nil {
		opts = k.alg.Hash()
		if k.alg.JOSE() == "PS256" {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.alg.Hash()}
		}
	}
	return k.private.(crypto.Signer).Sign(rand.Reader, digest, opts)
}

// Agreement returns the key itself, whose agreements are made under ctx.
func (k *key) Agreement(ctx context.Context) (ecdh.KeyExchanger, error) {
	private, ok := k.private.(*ecdh.PrivateKey)
	if !ok {
		return nil, &holdfast.Error{Op: "agree", Ref: k.ref, Code: holdfast.ErrUnsupported}
	}
	return exchanger{ctx, k, private}, nil
}

type exchanger struct {
	ctx     context.Context // ecdh.KeyExchanger has no room for one
	key     *key
	private *ecdh.PrivateKey
}

func (e exchanger) PublicKey() *ecdh.PublicKey { return e.private.PublicKey() }
func (e exchanger) Curve() ecdh.Curve          { return e.private.Curve() }

func (e exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if err := e.key.enter(e.ctx, "agree"); err != nil {
		return nil, err
	}
	defer e.key.backend.mu.Unlock()
	secret, err := e.private.ECDH(peer)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "agree", "%w", err)
	}
	return secret, nil
}

// Attest signs nothing: a software key has no device to vouch for it.
func (k *key) Attest(ctx context.Context, challenge []byte) (*holdfast.Evidence, error) {
	if len(challenge) != sha256.Size {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "attest", "a challenge has %d bytes", sha256.Size)
	}
	if err := k.enter(ctx, "attest"); err != nil {
		return nil, err
	}
	defer k.backend.mu.Unlock()
	return &holdfast.Evidence{Kind: "softkey", Files: map[string][]byte{"challenge": challenge}}, nil
}

// Encrypt encrypts with AES-256-GCM.
func (k *key) Encrypt(ctx context.Context, plaintext, additionalData []byte) ([]byte, error) {
	secret, ok := k.private.([]byte)
	if !ok {
		return nil, &holdfast.Error{Op: "encrypt", Ref: k.ref, Code: holdfast.ErrUnsupported}
	}
	if err := k.enter(ctx, "encrypt"); err != nil {
		return nil, err
	}
	defer k.backend.mu.Unlock()
	return sealGCM(secret, plaintext, additionalData), nil
}

// Decrypt decrypts what Encrypt returned.
func (k *key) Decrypt(ctx context.Context, ciphertext, additionalData []byte) ([]byte, error) {
	secret, ok := k.private.([]byte)
	if !ok {
		return nil, &holdfast.Error{Op: "decrypt", Ref: k.ref, Code: holdfast.ErrUnsupported}
	}
	if err := k.enter(ctx, "decrypt"); err != nil {
		return nil, err
	}
	defer k.backend.mu.Unlock()
	return openGCM(secret, ciphertext, additionalData)
}
