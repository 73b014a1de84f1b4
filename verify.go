package holdfast

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"math/big"
)

// Verify checks a signature in the form [Key.Sign] returns with the standard library. It returns ErrIntegrity when the
// signature is not valid, ErrInvalid when pub or digest do not fit the algorithm. For ES256K a signature with high S is
// not valid.
func Verify(a Algorithm, pub crypto.PublicKey, digest, signature []byte) error {
	if err := a.CheckInput(digest, nil); err != nil {
		return err
	}
	if err := a.CheckPublic(pub); err != nil {
		return err
	}
	var ok bool
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, digest, signature) && (a != ES256K || lowS(key, signature))
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, digest, signature)
	case *rsa.PublicKey:
		if a.JOSE() == "PS256" {
			options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash()}
			ok = rsa.VerifyPSS(key, a.Hash(), digest, signature, options) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(key, a.Hash(), digest, signature) == nil
		}
	}
	if !ok {
		return Errorf(ErrIntegrity, "", "the signature does not verify under the public key")
	}
	return nil
}

func lowS(key *ecdsa.PublicKey, signature []byte) bool {
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &sig); err != nil {
		return false
	}
	half := new(big.Int).Rsh(key.Params().N, 1)
	return sig.S.Cmp(half) <= 0
}
