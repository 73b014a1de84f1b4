package pubkey

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"

	"github.com/mr-tron/base58"
)

// Codes of the multicodec table, tag "key".
const (
	codeSecp256k1 = 0xe7
	codeX25519    = 0xec
	codeEd25519   = 0xed
	codeP256      = 0x1200
	codeP384      = 0x1201
	codeP521      = 0x1202
	codeRSA       = 0x1205
)

// maxMultikey is the longest multikey, in characters: that of an RSA key with 8192 bits has 1421.
const maxMultikey = 2048

// MarshalMultikey returns pub as a multikey: 'z', then base58btc of the multicodec varint and the key (Controlled
// Identifiers 1.0, section 2.2.2). Points are compressed; RSA keys are RSAPublicKey of RFC 8017 in DER. The form is the
// same for ECDSA and ECDH keys on one curve.
func MarshalMultikey(pub crypto.PublicKey) (string, error) {
	raw, err := marshalMulticodec(pub)
	if err != nil {
		return "", err
	}
	return "z" + base58.Encode(raw), nil
}

func marshalMulticodec(pub crypto.PublicKey) ([]byte, error) {
	parts, err := takeApart(pub)
	if err != nil {
		return nil, err
	}
	switch {
	case parts.point != nil:
		return prefixed(parts.curve.multicode, parts.curve.compress(parts.point)), nil
	case parts.ed25519 != nil:
		return prefixed(codeEd25519, parts.ed25519), nil
	case parts.x25519 != nil:
		return prefixed(codeX25519, parts.x25519), nil
	default:
		return prefixed(codeRSA, x509.MarshalPKCS1PublicKey(parts.rsa)), nil
	}
}

func prefixed(code uint64, key []byte) []byte {
	return append(binary.AppendUvarint(nil, code), key...)
}

// ParseMultikey returns the key of a multikey in base58btc ('z') or in base64url without padding ('u'). A point on a NIST
// curve comes back as *ecdsa.PublicKey, for multicodec does not say what it is used for.
func ParseMultikey(s string) (crypto.PublicKey, error) {
	if len(s) > maxMultikey {
		return nil, invalid("a multikey has at most %d characters, not %d", maxMultikey, len(s))
	}
	if s == "" {
		return nil, invalid("the multikey is empty")
	}
	var raw []byte
	var err error
	switch s[0] {
	case 'z':
		raw, err = base58.Decode(s[1:])
	case 'u':
		raw, err = base64.RawURLEncoding.Strict().DecodeString(s[1:])
		// DecodeString skips line breaks.
		if err == nil && base64.RawURLEncoding.EncodedLen(len(raw)) != len(s)-1 {
			return nil, invalid("the multikey is not base64url")
		}
	default:
		return nil, invalid("a multikey starts with z (base58btc) or u (base64url)")
	}
	if err != nil {
		return nil, invalid("decode multikey: %w", err)
	}
	return parseMulticodec(raw)
}

func parseMulticodec(raw []byte) (crypto.PublicKey, error) {
	code, n := binary.Uvarint(raw)
	// Unsigned varints have one shortest form; https://github.com/multiformats/unsigned-varint.
	if n <= 0 || !bytes.Equal(binary.AppendUvarint(nil, code), raw[:n]) {
		return nil, invalid("the multikey does not start with a multicodec varint")
	}
	key := raw[n:]
	if c, ok := findCurve(func(c curve) bool { return c.multicode == code }); ok {
		if len(key) != 1+c.size {
			return nil, invalid("a point on %s has %d bytes, compressed, not %d", c.name, 1+c.size, len(key))
		}
		return c.point(key)
	}
	switch code {
	case codeEd25519:
		return newEd25519(key)
	case codeX25519:
		return newX25519(key)
	case codeRSA:
		return parsePKCS1(key)
	default:
		return nil, unsupported("multikeys with multicodec 0x%x are not supported", code)
	}
}

func parsePKCS1(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return nil, invalid("decode RSAPublicKey: %w", err)
	}
	if err := checkRSA(key); err != nil {
		return nil, err
	}
	if !bytes.Equal(x509.MarshalPKCS1PublicKey(key), der) {
		return nil, invalid("the RSAPublicKey is not in DER")
	}
	return key, nil
}
