package client

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/sha256"

	"holdfast"
	pb "holdfast/api/holdfastpb"
	"holdfast/internal/pubkey"
)

// Key is a key in a daemon's custody.
type Key struct {
	backend   *Backend
	name      string
	ref       holdfast.Ref
	algorithm holdfast.Algorithm
	public    crypto.PublicKey
}

var (
	_ holdfast.Key       = (*Key)(nil)
	_ holdfast.Agreer    = (*Key)(nil)
	_ holdfast.Encrypter = (*Key)(nil)
	_ holdfast.Attester  = (*Key)(nil)
)

// Name returns the key's name in the daemon.
func (k *Key) Name() string { return k.name }

// Ref returns the key's ref on its device.
func (k *Key) Ref() holdfast.Ref { return k.ref }

// Algorithm returns the key's algorithm.
func (k *Key) Algorithm() holdfast.Algorithm { return k.algorithm }

// Public returns the public half.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign signs in the daemon's device.
func (k *Key) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.algorithm.CheckInput(digest, opts); err != nil {
		return nil, err
	}
	if err := k.backend.open(); err != nil {
		return nil, err
	}
	resp, err := k.backend.client.Sign(ctx, &pb.SignRequest{Name: k.name, Digest: digest})
	return resp.GetSignature(), err
}

// Agreement returns the key as an opaque private key.
func (k *Key) Agreement(ctx context.Context) (ecdh.KeyExchanger, error) {
	public, ok := k.public.(*ecdh.PublicKey)
	if !ok {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "agree", "%s keys do not agree on secrets", k.algorithm)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return exchanger{ctx, k, public}, nil
}

type exchanger struct {
	ctx    context.Context // ecdh.KeyExchanger has no room for one
	key    *Key
	public *ecdh.PublicKey
}

func (e exchanger) PublicKey() *ecdh.PublicKey { return e.public }
func (e exchanger) Curve() ecdh.Curve          { return e.public.Curve() }

func (e exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if err := e.key.backend.open(); err != nil {
		return nil, err
	}
	der, err := pubkey.MarshalSPKI(peer)
	if err != nil {
		return nil, err
	}
	resp, err := e.key.backend.client.Agree(e.ctx, &pb.AgreeRequest{Name: e.key.name, PeerPublicKey: der})
	return resp.GetSharedSecret(), err
}

// Encrypt encrypts in the daemon's device.
func (k *Key) Encrypt(ctx context.Context, plaintext, additionalData []byte) ([]byte, error) {
	if err := k.checkEncrypts(); err != nil {
		return nil, err
	}
	request := &pb.EncryptRequest{Name: k.name, Plaintext: plaintext, AdditionalData: additionalData}
	resp, err := k.backend.client.Encrypt(ctx, request)
	return resp.GetCiphertext(), err
}

// Decrypt decrypts in the daemon's device.
func (k *Key) Decrypt(ctx context.Context, ciphertext, additionalData []byte) ([]byte, error) {
	if err := k.checkEncrypts(); err != nil {
		return nil, err
	}
	request := &pb.DecryptRequest{Name: k.name, Ciphertext: ciphertext, AdditionalData: additionalData}
	resp, err := k.backend.client.Decrypt(ctx, request)
	return resp.GetPlaintext(), err
}

func (k *Key) checkEncrypts() error {
	if k.algorithm.Use() != holdfast.UseEncrypt {
		return holdfast.Errorf(holdfast.ErrUnsupported, "encrypt", "%s keys do not encrypt", k.algorithm)
	}
	return k.backend.open()
}

// Attest returns the daemon's evidence bundle, whose nonce is the challenge.
func (k *Key) Attest(ctx context.Context, challenge []byte) (*holdfast.Evidence, error) {
	if len(challenge) != sha256.Size {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "attest",
			"a challenge has %d bytes, not %d", sha256.Size, len(challenge))
	}
	if err := k.backend.open(); err != nil {
		return nil, err
	}
	resp, err := k.backend.client.AttestKey(ctx, &pb.AttestKeyRequest{Name: k.name, Nonce: challenge})
	if err != nil {
		return nil, err
	}
	return &holdfast.Evidence{Kind: resp.GetKind(), Files: resp.GetFiles()}, nil
}
