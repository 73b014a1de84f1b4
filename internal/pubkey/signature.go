package pubkey

import (
	"math/big"

	"holdfast"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// curveOf returns the curve of an ECDSA algorithm.
func curveOf(a holdfast.Algorithm) (curve, bool) {
	switch a {
	case holdfast.ES256:
		return curveNamed("P-256")
	case holdfast.ES384:
		return curveNamed("P-384")
	case holdfast.ES512:
		return curveNamed("P-521")
	case holdfast.ES256K:
		return curveNamed("secp256k1")
	default:
		return curve{}, false
	}
}

// RawSignature turns a signature as holdfast.Key.Sign returns it into the form of JOSE and of Data Integrity: for ECDSA
// r||s, each as long as a coordinate (RFC 7518, section 3.4), instead of ECDSA-Sig-Value in DER. EdDSA and RSA signatures
// are the same in both and returned as they are.
func RawSignature(a holdfast.Algorithm, signature []byte) ([]byte, error) {
	if a.Use() != holdfast.UseSign {
		return nil, unsupported("%s keys do not sign", a)
	}
	c, ok := curveOf(a)
	if !ok {
		return signature, nil
	}
	var r, s big.Int
	input := cryptobyte.String(signature)
	var sequence cryptobyte.String
	if !input.ReadASN1(&sequence, asn1.SEQUENCE) || !input.Empty() ||
		!sequence.ReadASN1Integer(&r) || !sequence.ReadASN1Integer(&s) || !sequence.Empty() {
		return nil, invalid("an %s signature is an ECDSA-Sig-Value in DER", a)
	}
	if !c.inRange(&r) || !c.inRange(&s) {
		return nil, invalid("r and s of an %s signature are between 1 and the order of %s", a, c.name)
	}
	raw := make([]byte, 2*c.size)
	r.FillBytes(raw[:c.size])
	s.FillBytes(raw[c.size:])
	return raw, nil
}

// DERSignature is the reverse of [RawSignature]: it returns what holdfast.Verify takes.
func DERSignature(a holdfast.Algorithm, raw []byte) ([]byte, error) {
	if a.Use() != holdfast.UseSign {
		return nil, unsupported("%s keys do not sign", a)
	}
	c, ok := curveOf(a)
	if !ok {
		return raw, nil
	}
	if len(raw) != 2*c.size {
		return nil, invalid("an %s signature has %d bytes (r||s), not %d", a, 2*c.size, len(raw))
	}
	r, s := new(big.Int).SetBytes(raw[:c.size]), new(big.Int).SetBytes(raw[c.size:])
	if !c.inRange(r) || !c.inRange(s) {
		return nil, invalid("r and s of an %s signature are between 1 and the order of %s", a, c.name)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, invalid("encode signature: %w", err)
	}
	return der, nil
}

func (c curve) inRange(n *big.Int) bool {
	return n.Sign() > 0 && n.Cmp(c.Params().N) < 0
}
