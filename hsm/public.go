//lint:file-ignore SA1019 crypto/ecdsa has no other way to hold a secp256k1 key than the curve interface and X and Y.

package hsm

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"holdfast"
)

// curve is one elliptic curve as PKCS#11 names it.
type curve struct {
	sign   holdfast.Algorithm // empty where the curve is for agreement only
	agree  holdfast.Algorithm // empty where the curve is for signatures only
	size   int                // bytes of a field element, a private key and a signature's half
	point  int                // bytes of a public point in its raw form
	params [][]byte           // the encodings of CKA_EC_PARAMS in use, the standard's first
}

// curves is the closed table of curves. PKCS#11 3.0, section 2.3.10 lets Ed25519 and X25519 be an OID (RFC 8410) or a
// curveName; modules take one of them or both, and read back what they like.
var curves = [...]curve{
	{holdfast.ES256, holdfast.ECDHP256, 32, 65, [][]byte{[]byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")}},
	{holdfast.ES384, holdfast.ECDHP384, 48, 97, [][]byte{[]byte("\x06\x05\x2b\x81\x04\x00\x22")}},
	{holdfast.ES512, "", 66, 133, [][]byte{[]byte("\x06\x05\x2b\x81\x04\x00\x23")}},
	{holdfast.ES256K, "", 32, 65, [][]byte{[]byte("\x06\x05\x2b\x81\x04\x00\x0a")}},
	{holdfast.EdDSA, "", 32, 32, [][]byte{[]byte("\x06\x03\x2b\x65\x70"), []byte("\x13\x0cedwards25519")}},
	{"", holdfast.ECDHX25519, 32, 32, [][]byte{[]byte("\x06\x03\x2b\x65\x6e"), []byte("\x13\x0acurve25519")}},
}

// curveOf returns the curve of an algorithm, nil if it has none.
func curveOf(a holdfast.Algorithm) *curve {
	for i := range curves {
		if a != "" && (curves[i].sign == a || curves[i].agree == a) {
			return &curves[i]
		}
	}
	return nil
}

// curveByParams returns the curve that CKA_EC_PARAMS names, nil for another.
func curveByParams(params []byte) *curve {
	for i := range curves {
		for _, p := range curves[i].params {
			if string(p) == string(params) {
				return &curves[i]
			}
		}
	}
	return nil
}

// rawPoint returns the point in CKA_EC_POINT, which the standard wants in a DER OCTET STRING and some modules return
// bare or in a BIT STRING.
func (c *curve) rawPoint(value []byte) ([]byte, error) {
	if len(value) == c.point {
		return value, nil
	}
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &outer); err == nil && len(rest) == 0 && outer.Class == asn1.ClassUniversal {
		switch {
		case outer.Tag == asn1.TagOctetString && len(outer.Bytes) == c.point:
			return outer.Bytes, nil
		case outer.Tag == asn1.TagBitString && len(outer.Bytes) == c.point+1 && outer.Bytes[0] == 0:
			return outer.Bytes[1:], nil
		}
	}
	return nil, fmt.Errorf("CKA_EC_POINT of %d bytes is no point of this curve", len(value))
}

// publicFromPoint returns the public key of algorithm a whose raw point is given, in the type that holdfast.Key
// documents. A point that is not on the curve is an error.
func publicFromPoint(a holdfast.Algorithm, point []byte) (crypto.PublicKey, error) {
	switch a {
	case holdfast.ES256:
		return ecdsaPublic(elliptic.P256(), point)
	case holdfast.ES384:
		return ecdsaPublic(elliptic.P384(), point)
	case holdfast.ES512:
		return ecdsaPublic(elliptic.P521(), point)
	case holdfast.ES256K:
		p, err := secp256k1.ParsePubKey(point)
		if err != nil {
			return nil, err
		}
		return p.ToECDSA(), nil
	case holdfast.EdDSA:
		if len(point) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 public key has %d bytes, not %d", ed25519.PublicKeySize, len(point))
		}
		return ed25519.PublicKey(point), nil
	case holdfast.ECDHP256:
		return ecdhPublic(ecdh.P256(), point)
	case holdfast.ECDHP384:
		return ecdhPublic(ecdh.P384(), point)
	case holdfast.ECDHX25519:
		return ecdhPublic(ecdh.X25519(), point)
	}
	return nil, fmt.Errorf("%s has no curve", a)
}

// The two below exist so that a nil pointer never becomes a crypto.PublicKey that is not nil.

func ecdsaPublic(c elliptic.Curve, point []byte) (crypto.PublicKey, error) {
	p, err := ecdsa.ParseUncompressedPublicKey(c, point)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func ecdhPublic(c ecdh.Curve, point []byte) (crypto.PublicKey, error) {
	p, err := c.NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return p, nil
}

var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

type subjectPublicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

// encodeSPKI returns the DER SubjectPublicKeyInfo of a public key, secp256k1 (which crypto/x509 does not know) included,
// and nothing for nil.
func encodeSPKI(pub crypto.PublicKey) ([]byte, error) {
	k, ok := pub.(*ecdsa.PublicKey)
	switch {
	case pub == nil:
		return nil, nil
	case !ok || k.Curve != secp256k1.S256():
		return x509.MarshalPKIXPublicKey(pub)
	}
	params, err := asn1.Marshal(oidSecp256k1)
	if err != nil {
		return nil, err
	}
	point := uncompressed(k)
	return asn1.Marshal(subjectPublicKeyInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: params}},
		PublicKey: asn1.BitString{Bytes: point, BitLength: 8 * len(point)},
	})
}

func uncompressed(k *ecdsa.PublicKey) []byte {
	var x, y secp256k1.FieldVal
	x.SetByteSlice(k.X.Bytes())
	y.SetByteSlice(k.Y.Bytes())
	return secp256k1.NewPublicKey(&x, &y).SerializeUncompressed()
}

// parseSPKI parses what encodeSPKI returned for a key of algorithm a.
func parseSPKI(a holdfast.Algorithm, der []byte) (crypto.PublicKey, error) {
	if a.Use() == holdfast.UseEncrypt && len(der) == 0 {
		return nil, nil
	}
	pub, err := parsePublic(a, der)
	if err != nil {
		return nil, err
	}
	return pub, a.CheckPublic(pub)
}

func parsePublic(a holdfast.Algorithm, der []byte) (crypto.PublicKey, error) {
	if a == holdfast.ES256K {
		var info subjectPublicKeyInfo
		if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) != 0 {
			return nil, fmt.Errorf("not a SubjectPublicKeyInfo")
		}
		return publicFromPoint(a, info.PublicKey.RightAlign())
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	if k, ok := pub.(*ecdsa.PublicKey); ok && a.Use() == holdfast.UseAgree {
		return k.ECDH()
	}
	return pub, nil
}
