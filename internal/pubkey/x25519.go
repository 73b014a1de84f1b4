package pubkey

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"math/big"
	"slices"
)

// X25519FromEd25519 returns the X25519 key that did:key derives from an Ed25519 key: the same point on the birationally
// equivalent Montgomery curve, u = (1+y)/(1-y) (RFC 7748, section 4.1). It returns ErrInvalid when pub is not a point of
// the curve in its one encoding, or a point of low order.
func X25519FromEd25519(pub ed25519.PublicKey) (*ecdh.PublicKey, error) {
	if _, err := newEd25519(pub); err != nil {
		return nil, err
	}
	little := slices.Clone(pub)
	little[31] &= 0x7f // the sign of x
	slices.Reverse(little)
	y := new(big.Int).SetBytes(little)

	one := big.NewInt(1)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	if y.Cmp(p) >= 0 || !onEdwards25519(y, p) {
		return nil, invalid("the Ed25519 public key is not a point of the curve")
	}
	// y is public, so variable time arithmetic gives nothing away.
	inverse := new(big.Int).ModInverse(new(big.Int).Mod(new(big.Int).Sub(one, y), p), p)
	if inverse == nil {
		return nil, invalid("the Ed25519 public key is the neutral element")
	}
	u := new(big.Int).Add(one, y)
	u.Mul(u, inverse).Mod(u, p)

	raw := u.FillBytes(make([]byte, 32))
	slices.Reverse(raw)
	key, err := newX25519(raw)
	if err != nil {
		return nil, err
	}
	return key, checkOrder(key)
}

// onEdwards25519 reports whether some x satisfies -x²+y² = 1+dx²y², that is whether (y²-1)/(dy²+1) is a square mod p.
func onEdwards25519(y, p *big.Int) bool {
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	y2 := new(big.Int).Mul(y, y)
	numerator := new(big.Int).Sub(y2, big.NewInt(1))
	denominator := d.Mul(d, y2)
	denominator.Add(denominator, big.NewInt(1))
	// The quotient is a square exactly when the product is.
	product := numerator.Mul(numerator, denominator)
	return big.Jacobi(product.Mod(product, p), p) >= 0
}

// checkOrder refuses points of low order: agreement with them gives zero whatever the private key is.
func checkOrder(key *ecdh.PublicKey) error {
	private, err := ecdh.X25519().NewPrivateKey(slices.Repeat([]byte{1}, 32))
	if err != nil {
		return invalid("check order: %w", err)
	}
	if _, err := private.ECDH(key); err != nil {
		return invalid("the Ed25519 public key is a point of low order")
	}
	return nil
}
