package pubkey

import (
	"crypto"
	"crypto/ecdsa"

	"holdfast"
)

// ParseSPKIFor returns the key of a SubjectPublicKeyInfo in DER, in the type that keys of algorithm a have: on a NIST
// curve *ecdh.PublicKey for key agreement and *ecdsa.PublicKey for signatures, which the encoding does not tell apart.
// It returns ErrInvalid when the key is none of algorithm a.
func ParseSPKIFor(a holdfast.Algorithm, der []byte) (crypto.PublicKey, error) {
	pub, err := ParseSPKI(der)
	if err != nil {
		return nil, err
	}
	if ec, ok := pub.(*ecdsa.PublicKey); ok && a.Use() == holdfast.UseAgree {
		if pub, err = ec.ECDH(); err != nil {
			return nil, invalid("the key cannot be used for %s: %w", a, err)
		}
	}
	if err := a.CheckPublic(pub); err != nil {
		return nil, err
	}
	return pub, nil
}
