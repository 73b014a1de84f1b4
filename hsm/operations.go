//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"crypto/ecdh"
	"errors"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// Agreement returns the key as a private key of crypto/ecdh whose agreements are made in the token, for crypto/hpke and
// others. It returns ErrUnsupported for a key that does not agree. The token is touched by its method ECDH only.
func (k *key) Agreement(ctx context.Context) (ecdh.KeyExchanger, error) {
	public, ok := k.public.(*ecdh.PublicKey)
	if !ok {
		return nil, failure("agree", k.ref, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"%s keys do not agree", k.algorithm))
	}
	return &exchanger{ctx: ctx, key: k, public: public}, nil
}

// exchanger is a key during one use of it.
type exchanger struct {
	ctx    context.Context // ecdh.KeyExchanger has no room for one
	key    *key
	public *ecdh.PublicKey
}

func (e *exchanger) PublicKey() *ecdh.PublicKey { return e.public }

func (e *exchanger) Curve() ecdh.Curve { return e.public.Curve() }

// ECDH returns the shared secret: the x-coordinate, or for X25519 the 32 bytes of RFC 7748. It returns ErrInvalid for a
// peer on another curve and for an X25519 peer of low order.
func (e *exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	k := e.key
	if peer == nil || peer.Curve() != e.Curve() {
		return nil, failure("agree", k.ref, holdfast.Errorf(holdfast.ErrInvalid, "",
			"the peer's public key is on another curve than this key"))
	}
	der := k.b.profile.Load().peerDER
	shared, err := ask(e.ctx, k.b, func(s *session) ([]byte, error) {
		h, release, err := k.find(s)
		if err != nil {
			return nil, err
		}
		defer release(s)
		return s.derive(h, peer.Bytes(), curveOf(k.algorithm).size, der)
	})
	if err != nil {
		return nil, failure("agree", k.ref, err)
	}
	var nonzero byte
	for _, b := range shared {
		nonzero |= b
	}
	if nonzero == 0 && k.algorithm == holdfast.ECDHX25519 {
		return nil, failure("agree", k.ref, holdfast.Errorf(holdfast.ErrInvalid, "",
			"the peer's public key is a point of low order")) // RFC 7748, section 6.1
	}
	return shared, nil
}

// Encrypt encrypts with AES-256-GCM in the token; see holdfast.Encrypter. The nonce is drawn here, or by the token where
// it insists.
func (k *key) Encrypt(ctx context.Context, plaintext, additionalData []byte) ([]byte, error) {
	if err := k.encrypts(); err != nil {
		return nil, failure("encrypt", k.ref, err)
	}
	sealed, err := ask(ctx, k.b, func(s *session) ([]byte, error) {
		h, release, err := k.find(s)
		if err != nil {
			return nil, err
		}
		defer release(s)
		return s.encrypt(h, plaintext, additionalData)
	})
	return sealed, failure("encrypt", k.ref, err)
}

func (k *key) encrypts() error {
	if k.algorithm.Use() != holdfast.UseEncrypt {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "%s keys do not encrypt", k.algorithm)
	}
	return nil
}

// Decrypt returns what was given to Encrypt; see holdfast.Encrypter.
func (k *key) Decrypt(ctx context.Context, ciphertext, additionalData []byte) ([]byte, error) {
	if err := k.encrypts(); err != nil {
		return nil, failure("decrypt", k.ref, err)
	}
	if len(ciphertext) < nonceSize+tagSize {
		return nil, failure("decrypt", k.ref, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the ciphertext is too short to be one"))
	}
	plaintext, err := ask(ctx, k.b, func(s *session) ([]byte, error) {
		h, release, err := k.find(s)
		if err != nil {
			return nil, err
		}
		defer release(s)
		plaintext, err := s.decrypt(h, ciphertext, additionalData)
		return plaintext, s.forged(err)
	})
	return plaintext, failure("decrypt", k.ref, err)
}

// forged turns the error of a decryption that failed on a token which is otherwise well into ErrIntegrity. SoftHSM2
// says CKR_GENERAL_ERROR when the tag is wrong.
func (s *session) forged(err error) error {
	if _, ok := errors.AsType[errForged](err); !ok || returned(err, lostValues[:]...) || returned(err, handleValues[:]...) {
		return err
	}
	if returned(err, vagueValues[:]...) || returned(err, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE) {
		if _, e := s.p11.GetTokenInfo(s.c.slot); e != nil {
			return err
		}
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the ciphertext or its additional data was changed (%w)", err)
	}
	return err
}
