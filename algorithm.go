package holdfast

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"

	// The hashes that the algorithms below name.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Algorithm names what a key is used for and all its parameters: a JOSE name (RFC 7518, RFC 8812, RFC 9864), followed by
// the modulus length for RSA and by the curve for key agreement.
type Algorithm string

// The algorithms Holdfast knows. A backend says with Capabilities which of them its device has.
const (
	ES256      Algorithm = "ES256"       // ECDSA, P-256, SHA-256
	ES384      Algorithm = "ES384"       // ECDSA, P-384, SHA-384
	ES512      Algorithm = "ES512"       // ECDSA, P-521, SHA-512
	ES256K     Algorithm = "ES256K"      // ECDSA, secp256k1, SHA-256, low-S
	EdDSA      Algorithm = "EdDSA"       // Ed25519 (RFC 8032, pure)
	RS256_2048 Algorithm = "RS256-2048"  // RSASSA-PKCS1-v1_5, SHA-256
	RS256_3072 Algorithm = "RS256-3072"  // RSASSA-PKCS1-v1_5, SHA-256
	RS256_4096 Algorithm = "RS256-4096"  // RSASSA-PKCS1-v1_5, SHA-256
	PS256_2048 Algorithm = "PS256-2048"  // RSASSA-PSS, SHA-256, salt of 32 bytes
	PS256_3072 Algorithm = "PS256-3072"  // RSASSA-PSS, SHA-256, salt of 32 bytes
	PS256_4096 Algorithm = "PS256-4096"  // RSASSA-PSS, SHA-256, salt of 32 bytes
	ECDHP256   Algorithm = "ECDH-P256"   // ECDH-ES on P-256
	ECDHP384   Algorithm = "ECDH-P384"   // ECDH-ES on P-384
	ECDHX25519 Algorithm = "ECDH-X25519" // ECDH-ES on Curve25519 (RFC 7748)
	A256GCM    Algorithm = "A256GCM"     // AES-256 in GCM, nonce of 96 bits, tag of 128 bits
)

// Use is the one kind of operation an algorithm stands for.
type Use uint8

// The uses.
const (
	UseNone    Use = iota // an algorithm that is not known
	UseSign               // digital signature
	UseAgree              // key agreement, [Agreer]
	UseEncrypt            // authenticated encryption, [Encrypter]
)

// String returns sign, agree, encrypt or none.
func (u Use) String() string {
	switch u {
	case UseSign:
		return "sign"
	case UseAgree:
		return "agree"
	case UseEncrypt:
		return "encrypt"
	default:
		return "none"
	}
}

type algorithmInfo struct {
	algorithm Algorithm
	jose      string
	use       Use
	hash      crypto.Hash
	bits      int // strength parameter: curve, modulus or key size
}

// algorithms is the closed table that every other list of algorithms comes from.
var algorithms = [...]algorithmInfo{
	{ES256, "ES256", UseSign, crypto.SHA256, 256},
	{ES384, "ES384", UseSign, crypto.SHA384, 384},
	{ES512, "ES512", UseSign, crypto.SHA512, 521},
	{ES256K, "ES256K", UseSign, crypto.SHA256, 256},
	{EdDSA, "EdDSA", UseSign, 0, 255},
	{RS256_2048, "RS256", UseSign, crypto.SHA256, 2048},
	{RS256_3072, "RS256", UseSign, crypto.SHA256, 3072},
	{RS256_4096, "RS256", UseSign, crypto.SHA256, 4096},
	{PS256_2048, "PS256", UseSign, crypto.SHA256, 2048},
	{PS256_3072, "PS256", UseSign, crypto.SHA256, 3072},
	{PS256_4096, "PS256", UseSign, crypto.SHA256, 4096},
	{ECDHP256, "ECDH-ES", UseAgree, 0, 256},
	{ECDHP384, "ECDH-ES", UseAgree, 0, 384},
	{ECDHX25519, "ECDH-ES", UseAgree, 0, 255},
	{A256GCM, "A256GCM", UseEncrypt, 0, 256},
}

// Algorithms returns all algorithms in the order documentation lists them.
func Algorithms() []Algorithm {
	list := make([]Algorithm, len(algorithms))
	for i := range algorithms {
		list[i] = algorithms[i].algorithm
	}
	return list
}

// ParseAlgorithm returns the algorithm called s, upper or lower case. RS256 and PS256 without a length mean 2048 bits,
// the one length that every kind of device has; Ed25519 is EdDSA (RFC 9864), X25519 is ECDH-X25519. It returns
// ErrInvalid, naming the choices, for anything else.
func ParseAlgorithm(s string) (Algorithm, error) {
	for i := range algorithms {
		if strings.EqualFold(s, string(algorithms[i].algorithm)) {
			return algorithms[i].algorithm, nil
		}
	}
	switch strings.ToUpper(s) {
	case "RS256":
		return RS256_2048, nil
	case "PS256":
		return PS256_2048, nil
	case "ED25519":
		return EdDSA, nil
	case "X25519":
		return ECDHX25519, nil
	}
	names := make([]string, len(algorithms))
	for i := range algorithms {
		names[i] = string(algorithms[i].algorithm)
	}
	return "", Errorf(ErrInvalid, "", "unknown algorithm %q: choose one of %s", s, strings.Join(names, ", "))
}

func (a Algorithm) info() algorithmInfo {
	i := slices.IndexFunc(algorithms[:], func(e algorithmInfo) bool { return e.algorithm == a })
	if i < 0 {
		return algorithmInfo{}
	}
	return algorithms[i]
}

// Valid reports whether a is one of the algorithms above.
func (a Algorithm) Valid() bool { return a.info().use != UseNone }

// JOSE returns the "alg" (for A256GCM: "enc") value of RFC 7518 that a stands for.
func (a Algorithm) JOSE() string { return a.info().jose }

// Use returns the kind of operation a stands for.
func (a Algorithm) Use() Use { return a.info().use }

// Hash returns the hash a signature algorithm is used with, 0 for those that take the message itself or do not sign.
func (a Algorithm) Hash() crypto.Hash { return a.info().hash }

// Bits returns the size of the curve's field, of the RSA modulus or of the secret key.
func (a Algorithm) Bits() int { return a.info().bits }

// RSA reports whether a is an RSA signature algorithm.
func (a Algorithm) RSA() bool { return a.info().bits >= 2048 }

// Digest returns what [Key.Sign] takes for message: its hash, or message itself where the algorithm hashes on its own.
func (a Algorithm) Digest(message []byte) []byte {
	if h := a.Hash(); h != 0 {
		w := h.New()
		w.Write(message)
		return w.Sum(nil)
	}
	return message
}

// MaxMessage is the longest message that EdDSA keys sign: the device has to take it whole, twice.
const MaxMessage = 1 << 20

// CheckInput says whether digest and opts fit a, with ErrUnsupported when a does not sign and ErrInvalid when they
// do not fit. Devices sign input of any length without complaint, so every backend asks this first.
func (a Algorithm) CheckInput(digest []byte, opts crypto.SignerOpts) error {
	if a.Use() != UseSign {
		return Errorf(ErrUnsupported, "", "%s keys do not sign", a)
	}
	if opts != nil && opts.HashFunc() != a.Hash() {
		return Errorf(ErrInvalid, "", "%s signs a %s, not a %s", a, inputName(a.Hash()), inputName(opts.HashFunc()))
	}
	switch o := opts.(type) {
	case *rsa.PSSOptions:
		if a.JOSE() != "PS256" {
			return Errorf(ErrInvalid, "", "%s is not RSASSA-PSS", a)
		}
		if o.SaltLength != rsa.PSSSaltLengthEqualsHash && o.SaltLength != a.Hash().Size() {
			return Errorf(ErrInvalid, "", "%s has a salt of %d bytes", a, a.Hash().Size())
		}
	case *ed25519.Options:
		if o.Context != "" {
			return Errorf(ErrInvalid, "", "EdDSA is pure Ed25519, without a context")
		}
	default:
		if opts != nil && a.JOSE() == "PS256" {
			return Errorf(ErrInvalid, "", "%s needs *rsa.PSSOptions, or no options at all", a)
		}
	}
	if h := a.Hash(); h != 0 && len(digest) != h.Size() {
		return Errorf(ErrInvalid, "", "%s signs a digest of %d bytes (%s), not %d", a, h.Size(), h, len(digest))
	}
	if len(digest) > MaxMessage {
		return Errorf(ErrInvalid, "", "the message is longer than %d bytes", MaxMessage)
	}
	return nil
}

func inputName(h crypto.Hash) string {
	if h == 0 {
		return "whole message"
	}
	return fmt.Sprintf("%s digest", h)
}

// CheckPublic returns ErrInvalid when pub is not a public key of algorithm a, in the type [Key.Public] says.
func (a Algorithm) CheckPublic(pub crypto.PublicKey) error {
	var fits bool
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		fits = key.Curve != nil && curveNames[a] == key.Curve.Params().Name
	case ed25519.PublicKey:
		fits = a == EdDSA && len(key) == ed25519.PublicKeySize
	case *rsa.PublicKey:
		fits = a.RSA() && key.N != nil && key.N.BitLen() == a.Bits()
	case *ecdh.PublicKey:
		fits = a == ECDHP256 && key.Curve() == ecdh.P256() || a == ECDHP384 && key.Curve() == ecdh.P384() ||
			a == ECDHX25519 && key.Curve() == ecdh.X25519()
	case nil:
		fits = a.Use() == UseEncrypt
	}
	if !fits {
		return Errorf(ErrInvalid, "", "a public key of type %T does not fit %s", pub, a)
	}
	return nil
}

// curveNames maps ECDSA algorithms to the name in elliptic.CurveParams.
var curveNames = map[Algorithm]string{ES256: "P-256", ES384: "P-384", ES512: "P-521", ES256K: "secp256k1"}
