//go:build cgo && !nopiv

package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// key is a key in a slot. It stays valid when the card is taken out and put back.
type key struct {
	b         *Backend
	ref       holdfast.Ref
	place     string
	slot      piv.Slot
	algorithm holdfast.Algorithm
	public    crypto.PublicKey // in the type that holdfast.Key.Public says
	pin       piv.PINPolicy    // 0 where the card does not tell: treated as always
	touch     piv.TouchPolicy
	making    bool // Generate has not yet written its certificate
}

var (
	_ holdfast.Key      = (*key)(nil)
	_ holdfast.Agreer   = (*key)(nil)
	_ holdfast.Attester = (*key)(nil)
)

func (b *Backend) newKey(c content, ref holdfast.Ref, a holdfast.Algorithm, public crypto.PublicKey) *key {
	return &key{
		b: b, ref: ref, place: c.place, slot: c.slot, algorithm: a,
		public: typedPublic(a, public), pin: c.pin, touch: c.touch,
	}
}

// Ref returns piv:serial=…;slot=…;id=….
func (k *key) Ref() holdfast.Ref { return k.ref }

// Algorithm returns the key's algorithm.
func (k *key) Algorithm() holdfast.Algorithm { return k.algorithm }

// Public returns the public key.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign signs in the card and verifies the signature before it returns it. Where the key wants a touch and nobody
// touches the card within the card's time (15 seconds), it returns ErrUnavailable. Cards take Ed25519 messages of a few
// thousand bytes only; longer ones get ErrInvalid.
func (k *key) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.algorithm.CheckInput(digest, opts); err != nil {
		return nil, translate("sign", k.ref, err)
	}
	if len(digest) > maxMessage {
		err := holdfast.Errorf(holdfast.ErrInvalid, "", "a PIV card takes no message of %d bytes", len(digest))
		return nil, translate("sign", k.ref, err)
	}
	var signature []byte
	err := k.b.do(ctx, "sign", k.ref, func(s *session) (err error) {
		signature, err = k.sign(ctx, s, digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	return signature, nil
}

// maxMessage is what piv-go can write a length for; cards stop earlier, by a status that is ErrInvalid here.
const maxMessage = 1<<16 - 16

// sign makes a signature in s and verifies it: cards exist that answer 9000 and return something else.
func (k *key) sign(ctx context.Context, s *session, digest []byte) ([]byte, error) {
	signature, err := k.use(ctx, s, func(private crypto.PrivateKey) ([]byte, error) {
		return private.(crypto.Signer).Sign(rand.Reader, digest, signerOpts(k.algorithm))
	})
	if err != nil {
		return nil, err
	}
	if err := holdfast.Verify(k.algorithm, k.public, digest, signature); err != nil {
		return nil, k.diagnose(s, err)
	}
	return signature, k.b.checkNonce(k, digest, signature)
}

func signerOpts(a holdfast.Algorithm) crypto.SignerOpts {
	if a.JOSE() == "PS256" {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash()}
	}
	return a.Hash()
}

// use lets f use the key, giving the PIN before where the key wants it.
func (k *key) use(ctx context.Context, s *session, f func(crypto.PrivateKey) ([]byte, error)) ([]byte, error) {
	given, err := k.b.authorize(ctx, s, k.pin)
	if err != nil {
		return nil, err
	}
	private, err := s.yk.PrivateKey(k.slot, k.pivPublic(), piv.KeyAuth{PINPolicy: k.auth()})
	if err != nil {
		return nil, err
	}
	out, err := f(private)
	if statusOf(err) == swSecurity && !given && k.pin == piv.PINPolicyOnce && k.touch == piv.TouchPolicyNever {
		// The card has forgotten that the PIN was verified. It accepted it before, so giving it again is no guess.
		if given, err = true, k.b.login(ctx, s); err == nil {
			out, err = f(private)
		}
	}
	if err == nil || gone(err) {
		return out, err
	}
	if statusOf(err) == swSecurity {
		s.verified = false // be it the touch or a forgotten PIN, the next use gives the PIN again
	}
	return nil, k.diagnose(s, k.explain(err))
}

// auth is what piv-go has to see to: fingerprints. The PIN is seen to here.
func (k *key) auth() piv.PINPolicy {
	if k.pin == piv.PINPolicyMatchOnce || k.pin == piv.PINPolicyMatchAlways {
		return k.pin
	}
	return piv.PINPolicyNever
}

// pivPublic returns the public key in the type piv-go wants: ECDSA for both uses of a point.
func (k *key) pivPublic() crypto.PublicKey {
	point, ok := k.public.(*ecdh.PublicKey)
	if !ok || point.Curve() == ecdh.X25519() {
		return k.public
	}
	public, err := ecdsaPublic(point)
	if err != nil {
		return k.public
	}
	return public
}

// explain says what a status of the card means for a key that is there.
func (k *key) explain(err error) error {
	switch sw := statusOf(err); {
	case sw == swSecurity && (k.touch == piv.TouchPolicyAlways || k.touch == piv.TouchPolicyCached):
		return holdfast.Errorf(holdfast.ErrUnavailable, "",
			"no touch within the card's time: touch it when it blinks (%w)", err)
	case sw == swSecurity:
		return holdfast.Errorf(holdfast.ErrAuth, "",
			"the card does not let the key be used although the PIN was accepted: %w", err)
	default:
		return err
	}
}

// diagnose looks whether the key is still in its slot when it could not be used, or made a wrong signature; err is what
// happened and is returned when the key is there.
func (k *key) diagnose(s *session, err error) error {
	if k.making || errors.Is(err, holdfast.ErrUnavailable) || errors.Is(err, holdfast.ErrLocked) {
		return err
	}
	c, readErr := k.b.readSlot(s, k.place)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	now, keyErr := k.b.keyOf(c)
	switch {
	case keyErr == nil && now.ref == k.ref && samePublic(now.public, k.public):
		return err
	case errors.Is(keyErr, holdfast.ErrIntegrity):
		return keyErr
	default:
		return holdfast.Errorf(holdfast.ErrNotFound, "", "the key is no longer on the card")
	}
}

// signature is what is remembered of an ECDSA signature.
type signature struct {
	digest []byte
	r      *big.Int
}

// checkNonce refuses a second signature with the same nonce over something else: two of them give the private key to
// whoever sees them. Cards with a broken random generator do that from the first on, so comparing with the last one is
// enough to notice.
func (b *Backend) checkNonce(k *key, digest, der []byte) error {
	if _, ok := k.public.(*ecdsa.PublicKey); !ok {
		return nil
	}
	var parts struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &parts); err != nil {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the card's signature: %w", err)
	}
	last, ok := b.nonces[k.ref]
	if ok && last.r.Cmp(parts.R) == 0 && !bytes.Equal(last.digest, digest) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the card used one nonce for two signatures, which gives the private key away: it is compromised, replace key and card")
	}
	b.nonces[k.ref] = signature{bytes.Clone(digest), parts.R}
	return nil
}

// ecdsaPublic is the inverse of (*ecdsa.PublicKey).ECDH.
func ecdsaPublic(point *ecdh.PublicKey) (*ecdsa.PublicKey, error) {
	curve := holdfastCurve(point.Curve())
	if curve == nil {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "no signatures on %v", point.Curve())
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point.Bytes())
}

// sessionSigner signs with a key inside an operation that already has the card.
type sessionSigner struct {
	ctx context.Context // crypto.Signer has no room for one
	s   *session
	k   *key
}

func (g sessionSigner) Public() crypto.PublicKey { return g.k.public }

func (g sessionSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := g.k.algorithm.CheckInput(digest, opts); err != nil {
		return nil, err
	}
	return g.k.sign(g.ctx, g.s, digest)
}
