package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// maxStructure is longer than any TPM structure in the evidence.
const maxStructure = 4096

// ParsePublic returns the TPMT_PUBLIC in data, and an error unless data is its one canonical encoding.
func ParsePublic(data []byte) (*tpm2.TPMTPublic, error) {
	return parse[tpm2.TPMTPublic](data)
}

// parse unmarshals a TPM structure and checks that marshalling it gives the same bytes, so that no bit of data is free.
func parse[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](data []byte) (*T, error) {
	if len(data) > maxStructure {
		return nil, fmt.Errorf("%d bytes are too long for a TPM structure", len(data))
	}
	v, err := tpm2.Unmarshal[T, P](data)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(*v), data) {
		return nil, fmt.Errorf("not in canonical form")
	}
	return v, nil
}

// PublicKey returns the key in a TPMT_PUBLIC: *rsa.PublicKey, or *ecdsa.PublicKey on P-256, P-384 or P-521, which is
// checked to be on its curve.
func PublicKey(public *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	switch public.Type {
	case tpm2.TPMAlgRSA:
		return rsaKey(public)
	case tpm2.TPMAlgECC:
		return eccKey(public)
	default:
		return nil, fmt.Errorf("an object of type %#x is no key pair", uint16(public.Type))
	}
}

func rsaKey(public *tpm2.TPMTPublic) (*rsa.PublicKey, error) {
	detail, err := public.Parameters.RSADetail()
	if err != nil {
		return nil, err
	}
	modulus, err := public.Unique.RSA()
	if err != nil {
		return nil, err
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus.Buffer), E: 65537}
	if detail.Exponent != 0 { // 0 stands for 65537 (Part 2, section 12.2.3.5)
		key.E = int(detail.Exponent)
	}
	if key.N.BitLen() != int(detail.KeyBits) || key.E < 3 || key.E%2 == 0 {
		return nil, fmt.Errorf("the RSA key does not have %d bits and an odd exponent", detail.KeyBits)
	}
	return key, nil
}

func eccKey(public *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	detail, err := public.Parameters.ECCDetail()
	if err != nil {
		return nil, err
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, err
	}
	curve, err := Curve(detail.CurveID)
	if err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(point.X.Buffer) > size || len(point.Y.Buffer) > size {
		return nil, fmt.Errorf("the point has coordinates longer than %d bytes", size)
	}
	encoded := make([]byte, 1+2*size)
	encoded[0] = 4
	copy(encoded[1+size-len(point.X.Buffer):], point.X.Buffer)
	copy(encoded[1+2*size-len(point.Y.Buffer):], point.Y.Buffer)
	return ecdsa.ParseUncompressedPublicKey(curve, encoded)
}

// Curve returns the curve that a TPM_ECC_CURVE names, if Go has it and Holdfast uses it.
func Curve(id tpm2.TPMECCCurve) (elliptic.Curve, error) {
	switch id {
	case tpm2.TPMECCNistP256:
		return elliptic.P256(), nil
	case tpm2.TPMECCNistP384:
		return elliptic.P384(), nil
	case tpm2.TPMECCNistP521:
		return elliptic.P521(), nil
	default:
		return nil, fmt.Errorf("curve %#x is none of P-256, P-384 and P-521", uint16(id))
	}
}

// samePublic compares by SubjectPublicKeyInfo, in which a P-256 key for ECDSA and one for ECDH are the same.
func samePublic(a, b crypto.PublicKey) bool {
	x, err := x509.MarshalPKIXPublicKey(a)
	if err != nil {
		return false
	}
	y, err := x509.MarshalPKIXPublicKey(b)
	return err == nil && bytes.Equal(x, y)
}
