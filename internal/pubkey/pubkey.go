//lint:file-ignore SA1019 crypto/ecdsa has no other way to hold a secp256k1 key than the curve interface and X and Y.

// Package pubkey encodes public keys and signatures for the world outside: SubjectPublicKeyInfo in DER and PEM, JWK,
// Multikey, and the lines of OpenSSH's authorized_keys.
//
// The keys are those of holdfast.Key.Public: *ecdsa.PublicKey on P-256, P-384, P-521 or secp256k1, ed25519.PublicKey,
// *rsa.PublicKey with 2048 to 8192 bits, *ecdh.PublicKey on X25519, P-256, P-384 or P-521. Parsing returns the same
// types. It is strict: an encoding has exactly one accepted form, so that two different strings never name one key, and
// points are on their curve. All errors are *holdfast.Error with ErrInvalid for what is malformed and ErrUnsupported for
// well-formed keys of a kind that is not in the list.
package pubkey

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"

	"holdfast"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// The lengths of RSA moduli that are accepted, in bits. Shorter ones are broken, longer ones serve only to keep a
// verifier busy.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// curve is one elliptic curve with its names in the standards.
type curve struct {
	elliptic.Curve
	name      string     // in JWK (RFC 7518, RFC 8812) and elliptic.CurveParams
	size      int        // bytes of a coordinate
	multicode uint64     // in the multicodec table
	ecdh      ecdh.Curve // nil where crypto/ecdh has none
}

// curves is the closed table of curves for ECDSA keys.
func curves() []curve {
	return []curve{
		{elliptic.P256(), "P-256", 32, codeP256, ecdh.P256()},
		{elliptic.P384(), "P-384", 48, codeP384, ecdh.P384()},
		{elliptic.P521(), "P-521", 66, codeP521, ecdh.P521()},
		{secp256k1.S256(), "secp256k1", 32, codeSecp256k1, nil},
	}
}

func findCurve(match func(curve) bool) (curve, bool) {
	for _, c := range curves() {
		if match(c) {
			return c, true
		}
	}
	return curve{}, false
}

// curveNamed returns the curve with that name.
func curveNamed(name string) (curve, bool) {
	return findCurve(func(c curve) bool { return c.name == name })
}

func (c curve) isSecp256k1() bool { return c.name == "secp256k1" }

// point makes a key of an encoded point: uncompressed (04 X Y) or compressed (02 or 03, X), SEC 1, section 2.3.
func (c curve) point(encoded []byte) (*ecdsa.PublicKey, error) {
	compressed := len(encoded) == 1+c.size && (encoded[0] == 2 || encoded[0] == 3)
	uncompressed := len(encoded) == 1+2*c.size && encoded[0] == 4
	switch {
	case !compressed && !uncompressed:
		return nil, invalid("a point on %s has 1+%d or 1+%d bytes and starts with 02, 03 or 04", c.name, c.size, 2*c.size)
	case c.isSecp256k1():
		key, err := secp256k1.ParsePubKey(encoded)
		if err != nil {
			return nil, invalid("the point is not on secp256k1")
		}
		return key.ToECDSA(), nil
	case compressed:
		x, y := elliptic.UnmarshalCompressed(c.Curve, encoded)
		if x == nil {
			return nil, invalid("the point is not on %s", c.name)
		}
		encoded = make([]byte, 1+2*c.size)
		encoded[0] = 4
		x.FillBytes(encoded[1 : 1+c.size])
		y.FillBytes(encoded[1+c.size:])
	}
	key, err := ecdsa.ParseUncompressedPublicKey(c.Curve, encoded)
	if err != nil {
		return nil, invalid("the point is not on %s", c.name)
	}
	return key, nil
}

// uncompressed returns 04 X Y for a key that is on its curve.
func (c curve) uncompressed(key *ecdsa.PublicKey) ([]byte, error) {
	if !c.isSecp256k1() {
		encoded, err := key.Bytes()
		if err != nil {
			return nil, invalid("the point is not on %s", c.name)
		}
		return encoded, nil
	}
	// PublicKey.Bytes knows the standard library's own curves only.
	if key.X == nil || key.Y == nil || key.X.Sign() < 0 || key.Y.Sign() < 0 ||
		key.X.BitLen() > 8*c.size || key.Y.BitLen() > 8*c.size {
		return nil, invalid("the point is not on secp256k1")
	}
	encoded := make([]byte, 1+2*c.size)
	encoded[0] = 4
	key.X.FillBytes(encoded[1 : 1+c.size])
	key.Y.FillBytes(encoded[1+c.size:])
	if _, err := c.point(encoded); err != nil {
		return nil, err
	}
	return encoded, nil
}

// compress shortens 04 X Y to 02 X or 03 X.
func (c curve) compress(uncompressed []byte) []byte {
	sign := 2 | uncompressed[2*c.size]&1
	return append([]byte{sign}, uncompressed[1:1+c.size]...)
}

// plain is a public key taken apart: exactly one of its parts is set.
type plain struct {
	curve curve  // with point: an elliptic curve key in Weierstrass form
	point []byte // 04 X Y

	ed25519 ed25519.PublicKey
	x25519  []byte
	rsa     *rsa.PublicKey
}

// takeApart checks pub and returns its parts. It is the one place that knows the Go types of keys.
func takeApart(pub crypto.PublicKey) (plain, error) {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		return takeApartECDSA(key)
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return plain{}, invalid("an Ed25519 public key has %d bytes, not %d", ed25519.PublicKeySize, len(key))
		}
		return plain{ed25519: key}, nil
	case *rsa.PublicKey:
		if err := checkRSA(key); err != nil {
			return plain{}, err
		}
		return plain{rsa: key}, nil
	case *ecdh.PublicKey:
		if key == nil {
			return plain{}, invalid("there is no public key")
		}
		if key.Curve() == ecdh.X25519() {
			return plain{x25519: key.Bytes()}, nil
		}
		c, ok := findCurve(func(c curve) bool { return c.ecdh == key.Curve() })
		if !ok {
			return plain{}, unsupported("ECDH keys on %v have no encoding here", key.Curve())
		}
		return plain{curve: c, point: key.Bytes()}, nil
	case nil:
		return plain{}, invalid("there is no public key")
	default:
		return plain{}, unsupported("public keys of type %T have no encoding here", pub)
	}
}

func takeApartECDSA(key *ecdsa.PublicKey) (plain, error) {
	if key == nil || key.Curve == nil {
		return plain{}, invalid("there is no public key")
	}
	name := key.Params().Name
	c, ok := curveNamed(name)
	if !ok {
		return plain{}, unsupported("elliptic curve keys on %q have no encoding here", name)
	}
	point, err := c.uncompressed(key)
	if err != nil {
		return plain{}, err
	}
	return plain{curve: c, point: point}, nil
}

func checkRSA(key *rsa.PublicKey) error {
	if key == nil || key.N == nil {
		return invalid("there is no public key")
	}
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return unsupported("RSA keys have %d to %d bits here, not %d", minRSABits, maxRSABits, bits)
	}
	if key.N.Bit(0) == 0 || key.E < 3 || key.E&1 == 0 {
		return invalid("the RSA modulus and exponent are odd, and the exponent is at least 3")
	}
	return nil
}

// ecdhPoint makes an *ecdh.PublicKey of 04 X Y.
func (c curve) ecdhPoint(point []byte) (*ecdh.PublicKey, error) {
	if c.ecdh == nil {
		return nil, unsupported("%s is not used for key agreement", c.name)
	}
	key, err := c.ecdh.NewPublicKey(point)
	if err != nil {
		return nil, invalid("the point is not on %s", c.name)
	}
	return key, nil
}

func newX25519(raw []byte) (*ecdh.PublicKey, error) {
	key, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return nil, invalid("an X25519 public key has 32 bytes, not %d", len(raw))
	}
	return key, nil
}

func newEd25519(raw []byte) (ed25519.PublicKey, error) {
	if len(raw) != ed25519.PublicKeySize {
		return nil, invalid("an Ed25519 public key has %d bytes, not %d", ed25519.PublicKeySize, len(raw))
	}
	return ed25519.PublicKey(raw), nil
}

func invalid(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", format, args...)
}

func unsupported(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrUnsupported, "", format, args...)
}
