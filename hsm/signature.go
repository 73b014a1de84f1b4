package hsm

import (
	"bytes"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"holdfast"
)

// digestInfoSHA256 is the DER DigestInfo of RFC 8017, section 9.2 up to the digest: CKM_RSA_PKCS pads and does not hash.
var digestInfoSHA256 = []byte{
	0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
}

// ecdsaDER returns the ASN.1 ECDSA-Sig-Value of r||s, the form in which CKM_ECDSA returns signatures (PKCS#11 2.40,
// section 2.3.1). size is the length of each half. For ES256K s is made the lower of the two that verify; PKCS#11
// tokens return either. It returns ErrIntegrity for a signature of another length.
func ecdsaDER(a holdfast.Algorithm, raw []byte, size int) ([]byte, error) {
	if len(raw) != 2*size {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the token returned an ECDSA signature of %d bytes instead of %d", len(raw), 2*size)
	}
	r, s := raw[:size], raw[size:]
	if a == holdfast.ES256K {
		s = lowS(s)
	}
	r, s = minimal(r), minimal(s)
	content := integerSize(r) + integerSize(s)
	out := make([]byte, 0, content+3)
	out = append(out, 0x30)
	if content > 127 { // only P-521 is that long
		out = append(out, 0x81)
	}
	out = append(out, byte(content))
	out = appendInteger(out, r)
	return appendInteger(out, s), nil
}

// minimal strips leading zeros, down to one byte.
func minimal(b []byte) []byte {
	if t := bytes.TrimLeft(b, "\x00"); len(t) > 0 {
		return t
	}
	return b[len(b)-1:]
}

// integerSize is the length of the DER INTEGER of b with its header. b has at most 66 bytes.
func integerSize(b []byte) int { return 2 + len(b) + int(b[0]>>7) }

func appendInteger(out, b []byte) []byte {
	n := len(b) + int(b[0]>>7)
	out = append(out, 0x02, byte(n))
	if b[0]>>7 == 1 {
		out = append(out, 0) // INTEGERs are signed
	}
	return append(out, b...)
}

// lowS returns s or, where s is over half the order of secp256k1, the order minus s.
func lowS(s []byte) []byte {
	var n secp256k1.ModNScalar
	if overflow := n.SetByteSlice(s); overflow || !n.IsOverHalfOrder() {
		return s
	}
	out := n.Negate().Bytes()
	return out[:]
}
