package pubkey

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
)

// maxEncoded bounds what any parser here looks at: four times the longest key.
const maxEncoded = 8 << 10

// pemType is the label of RFC 7468, section 13.
const pemType = "PUBLIC KEY"

// spki is SubjectPublicKeyInfo of RFC 5280, section 4.1.
type spki struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

// oidECPublicKey is id-ecPublicKey of RFC 5480, section 2.1.1.
func oidECPublicKey() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} }

// oidSecp256k1 is the curve of SEC 2, which RFC 5480 does not list and crypto/x509 does not know.
func oidSecp256k1() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 132, 0, 10} }

// MarshalSPKI returns pub as a SubjectPublicKeyInfo in DER (RFC 5280, RFC 5480, RFC 8410). Points are uncompressed.
func MarshalSPKI(pub crypto.PublicKey) ([]byte, error) {
	parts, err := takeApart(pub)
	if err != nil {
		return nil, err
	}
	if parts.point == nil || !parts.curve.isSecp256k1() {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return nil, invalid("encode SubjectPublicKeyInfo: %w", err)
		}
		return der, nil
	}
	parameters, err := asn1.Marshal(oidSecp256k1())
	if err != nil {
		return nil, invalid("encode curve: %w", err)
	}
	der, err := asn1.Marshal(spki{
		Algorithm: pkix.AlgorithmIdentifier{
			Algorithm:  oidECPublicKey(),
			Parameters: asn1.RawValue{FullBytes: parameters},
		},
		PublicKey: asn1.BitString{Bytes: parts.point, BitLength: 8 * len(parts.point)},
	})
	if err != nil {
		return nil, invalid("encode SubjectPublicKeyInfo: %w", err)
	}
	return der, nil
}

// ParseSPKI returns the key of a SubjectPublicKeyInfo in DER. A key on a NIST curve comes back as *ecdsa.PublicKey, for
// id-ecPublicKey does not say what it is used for.
func ParseSPKI(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxEncoded {
		return nil, invalid("a SubjectPublicKeyInfo has at most %d bytes, not %d", maxEncoded, len(der))
	}
	pub, err := parseSPKI(der)
	if err != nil {
		return nil, err
	}
	again, err := MarshalSPKI(pub)
	if err != nil {
		return nil, err
	}
	// encoding/asn1 accepts some BER; the one form of a key is its DER.
	if !bytes.Equal(again, der) {
		return nil, invalid("the SubjectPublicKeyInfo is not in DER")
	}
	return pub, nil
}

func parseSPKI(der []byte) (crypto.PublicKey, error) {
	var info spki
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) != 0 {
		return nil, invalid("this is not a SubjectPublicKeyInfo in DER")
	}
	if err := supported(info.Algorithm); err != nil {
		return nil, err
	}
	if curveID, ok := namedCurve(info.Algorithm); ok && curveID.Equal(oidSecp256k1()) {
		point := info.PublicKey.RightAlign()
		if len(point) != 65 {
			return nil, invalid("the point is not in uncompressed form")
		}
		c, _ := curveNamed("secp256k1")
		return c.point(point)
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, invalid("decode SubjectPublicKeyInfo: %w", err)
	}
	return pub, nil
}

// namedCurve returns the curve that the parameters of id-ecPublicKey name.
func namedCurve(algorithm pkix.AlgorithmIdentifier) (asn1.ObjectIdentifier, bool) {
	var id asn1.ObjectIdentifier
	_, err := asn1.Unmarshal(algorithm.Parameters.FullBytes, &id)
	return id, err == nil && algorithm.Algorithm.Equal(oidECPublicKey())
}

// supported tells keys of other kinds from damaged ones.
func supported(algorithm pkix.AlgorithmIdentifier) error {
	if algorithm.Algorithm.Equal(oidECPublicKey()) {
		id, ok := namedCurve(algorithm)
		if !ok {
			return unsupported("an elliptic curve is named by its object identifier here")
		}
		switch id.String() {
		case "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35", "1.3.132.0.10": // P-256, P-384, P-521, secp256k1
			return nil
		}
		return unsupported("elliptic curve %s is not supported", id)
	}
	switch algorithm.Algorithm.String() {
	case "1.2.840.113549.1.1.1", "1.3.101.112", "1.3.101.110": // rsaEncryption, Ed25519, X25519
		return nil
	}
	return unsupported("public keys of algorithm %s are not supported", algorithm.Algorithm)
}

// MarshalPEM returns pub as a PEM block of type PUBLIC KEY (RFC 7468, section 13), ending in a newline.
func MarshalPEM(pub crypto.PublicKey) ([]byte, error) {
	der, err := MarshalSPKI(pub)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParsePEM returns the key of the one PEM block in data. White space may stand around it and nothing else: a file with
// several keys, or with a private one, is refused.
func ParsePEM(data []byte) (crypto.PublicKey, error) {
	if len(data) > 2*maxEncoded {
		return nil, invalid("a public key in PEM has at most %d bytes, not %d", 2*maxEncoded, len(data))
	}
	data = bytes.TrimSpace(data)
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, invalid("this is not a public key in PEM: it does not start with -----BEGIN %s-----", pemType)
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, invalid("the PEM block is damaged")
	}
	if block.Type != pemType {
		return nil, invalid("the PEM block has to be of type %s, not %q", pemType, block.Type)
	}
	if len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
		return nil, invalid("there has to be exactly one PEM block, without headers, and nothing else")
	}
	return ParseSPKI(block.Bytes)
}
