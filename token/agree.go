//go:build cgo && !nopiv

package token

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/subtle"

	"holdfast"
)

// holdfastCurve returns the ECDSA curve that has the points of c, nil for X25519.
func holdfastCurve(c ecdh.Curve) elliptic.Curve {
	switch c {
	case ecdh.P256():
		return elliptic.P256()
	case ecdh.P384():
		return elliptic.P384()
	default:
		return nil
	}
}

// Agreement returns the key for crypto/hpke and others. Every agreement is made in the card.
func (k *key) Agreement(ctx context.Context) (ecdh.KeyExchanger, error) {
	if k.algorithm.Use() != holdfast.UseAgree {
		err := holdfast.Errorf(holdfast.ErrUnsupported, "", "%s keys make no agreements", k.algorithm)
		return nil, translate("agree", k.ref, err)
	}
	return exchanger{ctx, k}, nil
}

// exchanger is a key for agreement under a context.
type exchanger struct {
	ctx context.Context // ecdh.KeyExchanger has no room for one
	k   *key
}

func (e exchanger) PublicKey() *ecdh.PublicKey { return e.k.public.(*ecdh.PublicKey) }
func (e exchanger) Curve() ecdh.Curve          { return e.PublicKey().Curve() }

// ECDH returns the x-coordinate of the shared point, as (*ecdh.PrivateKey).ECDH does. It returns ErrInvalid for a peer
// on another curve and for one of low order.
func (e exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != e.Curve() {
		err := holdfast.Errorf(holdfast.ErrInvalid, "", "the peer's public key is not on the key's curve, %v", e.Curve())
		return nil, translate("agree", e.k.ref, err)
	}
	var secret []byte
	err := e.k.b.do(e.ctx, "agree", e.k.ref, func(s *session) (err error) {
		secret, err = e.k.agree(e.ctx, s, peer)
		return err
	})
	if err != nil {
		return nil, err
	}
	return secret, nil
}

// agree makes an agreement in s. Whether the card computed it right cannot be seen without the private key; what the
// secret opens shows it.
func (k *key) agree(ctx context.Context, s *session, peer *ecdh.PublicKey) ([]byte, error) {
	secret, err := k.use(ctx, s, func(private crypto.PrivateKey) ([]byte, error) {
		return private.(interface {
			ECDH(*ecdh.PublicKey) ([]byte, error)
		}).ECDH(peer)
	})
	if err != nil {
		return nil, err
	}
	size := (k.algorithm.Bits() + 7) / 8
	if len(secret) != size {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the card returned a shared secret of %d bytes, not %d", len(secret), size)
	}
	if subtle.ConstantTimeCompare(secret, make([]byte, size)) == 1 {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the peer's public key has low order (RFC 7748, section 6.1)")
	}
	return secret, nil
}
