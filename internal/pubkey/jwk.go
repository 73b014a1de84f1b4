package pubkey

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"unicode/utf8"

	"holdfast/internal/strictjson"
)

// JWK is a public key as a JSON Web Key (RFC 7517, RFC 7518, RFC 8037, RFC 8812) with the members Holdfast uses.
type JWK struct {
	// Public is the key.
	Public crypto.PublicKey

	// KeyID is "kid", empty for none.
	KeyID string

	// Algorithm is "alg", empty for none: ES256, EdDSA, ECDH-ES+A256KW. A signature algorithm has to fit the key.
	Algorithm string

	// Use is "use": "sig", "enc" or empty. Keys for key agreement cannot have "sig".
	Use string
}

// members of a JWK in the order of JCS (RFC 8785), which is also that of RFC 7638.
type jwkMembers struct {
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	E         string `json:"e,omitempty"`
	KeyID     string `json:"kid,omitempty"`
	KeyType   string `json:"kty"`
	N         string `json:"n,omitempty"`
	Use       string `json:"use,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

// required returns the members of RFC 7638, section 3.2, that describe the key itself.
func required(pub crypto.PublicKey) (jwkMembers, error) {
	parts, err := takeApart(pub)
	if err != nil {
		return jwkMembers{}, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	switch {
	case parts.point != nil:
		x, y := parts.point[1:1+parts.curve.size], parts.point[1+parts.curve.size:]
		return jwkMembers{KeyType: "EC", Curve: parts.curve.name, X: encode(x), Y: encode(y)}, nil
	case parts.ed25519 != nil:
		return jwkMembers{KeyType: "OKP", Curve: "Ed25519", X: encode(parts.ed25519)}, nil
	case parts.x25519 != nil:
		return jwkMembers{KeyType: "OKP", Curve: "X25519", X: encode(parts.x25519)}, nil
	default:
		e := big.NewInt(int64(parts.rsa.E)).Bytes()
		return jwkMembers{KeyType: "RSA", N: encode(parts.rsa.N.Bytes()), E: encode(e)}, nil
	}
}

// MarshalJSON returns what [JWK.Marshal] does; encoding/json then escapes <, > and & in it.
func (k JWK) MarshalJSON() ([]byte, error) { return k.Marshal() }

// Marshal returns the JWK without white space and with its members in the order of JCS.
func (k JWK) Marshal() ([]byte, error) {
	members, err := required(k.Public)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(k.KeyID + k.Algorithm) {
		return nil, invalid("kid and alg of a JWK are UTF-8")
	}
	members.KeyID, members.Algorithm, members.Use = k.KeyID, k.Algorithm, k.Use
	if err := k.check(members); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(members); err != nil {
		return nil, invalid("encode JWK: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Thumbprint returns the JWK thumbprint of pub with SHA-256 (RFC 7638) in base64url without padding.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	members, err := required(pub)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(members)
	if err != nil {
		return "", invalid("encode JWK: %w", err)
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// privateMembers are those of RFC 7518, sections 6.2.2, 6.3.2 and 6.4, that never belong in a public key.
func privateMembers() []string { return []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} }

// ParseJWK returns the key in data. It refuses duplicate members, members of private keys, values with padding, needless
// or missing octets, and an "alg" or "use" that does not fit the key. Members it does not know are ignored, as RFC 7517,
// section 4, asks for. An EC key whose "use" is enc or whose "alg" is ECDH-ES comes back as *ecdh.PublicKey.
func ParseJWK(data []byte) (JWK, error) {
	if len(data) > maxEncoded {
		return JWK{}, invalid("a JWK has at most %d bytes, not %d", maxEncoded, len(data))
	}
	if err := strictjson.Check(data); err != nil {
		return JWK{}, err
	}
	object, err := strictjson.Object(data)
	if err != nil {
		return JWK{}, err
	}
	for _, name := range privateMembers() {
		if _, has := object[name]; has {
			return JWK{}, invalid("the JWK holds a private key (member %q): give out its public members only", name)
		}
	}
	members, err := knownMembers(object)
	if err != nil {
		return JWK{}, err
	}
	key := JWK{KeyID: members.KeyID, Algorithm: members.Algorithm, Use: members.Use}
	if key.Public, err = members.public(key.agreement()); err != nil {
		return JWK{}, err
	}
	return key, key.check(members)
}

func knownMembers(object map[string]json.RawMessage) (m jwkMembers, err error) {
	for _, field := range []struct {
		name  string
		value *string
	}{
		{"alg", &m.Algorithm}, {"crv", &m.Curve}, {"e", &m.E}, {"kid", &m.KeyID}, {"kty", &m.KeyType},
		{"n", &m.N}, {"use", &m.Use}, {"x", &m.X}, {"y", &m.Y},
	} {
		raw, has := object[field.name]
		if !has {
			continue
		}
		if *field.value, err = strictjson.String(raw); err != nil {
			return m, invalid("JWK member %q: %w", field.name, err)
		}
		if *field.value == "" {
			return m, invalid("JWK member %q is empty", field.name)
		}
	}
	return m, nil
}

// agreement reports whether the JWK says that it is for key agreement.
func (k JWK) agreement() bool { return k.Use == "enc" || strings.HasPrefix(k.Algorithm, "ECDH-ES") }

func (m jwkMembers) public(agreement bool) (crypto.PublicKey, error) {
	switch m.KeyType {
	case "EC":
		return m.ec(agreement)
	case "OKP":
		if m.Y != "" || m.N != "" || m.E != "" {
			return nil, invalid("an OKP key has the members crv and x only")
		}
		x, err := octets("x", m.X)
		if err != nil {
			return nil, err
		}
		switch m.Curve {
		case "Ed25519":
			return newEd25519(x)
		case "X25519":
			return newX25519(x)
		}
		return nil, unsupported("OKP keys with crv %q are not supported", m.Curve)
	case "RSA":
		return m.rsa()
	default:
		return nil, unsupported("JWKs with kty %q are not supported", m.KeyType)
	}
}

func (m jwkMembers) ec(agreement bool) (crypto.PublicKey, error) {
	c, ok := curveNamed(m.Curve)
	if !ok {
		return nil, unsupported("EC keys with crv %q are not supported", m.Curve)
	}
	x, err := octets("x", m.X)
	if err != nil {
		return nil, err
	}
	y, err := octets("y", m.Y)
	if err != nil {
		return nil, err
	}
	// RFC 7518, section 6.2.1.2: the length of a coordinate is that of the field, leading zeros included.
	if len(x) != c.size || len(y) != c.size || m.N != "" || m.E != "" {
		return nil, invalid("a key on %s has x and y of %d bytes each", c.name, c.size)
	}
	point := append(append([]byte{4}, x...), y...)
	if agreement {
		return c.ecdhPoint(point)
	}
	return c.point(point)
}

func (m jwkMembers) rsa() (crypto.PublicKey, error) {
	n, err := octets("n", m.N)
	if err != nil {
		return nil, err
	}
	e, err := octets("e", m.E)
	if err != nil {
		return nil, err
	}
	// RFC 7518, section 2, Base64urlUInt: no more octets than needed.
	if n[0] == 0 || e[0] == 0 || m.X != "" || m.Y != "" || m.Curve != "" {
		return nil, invalid("n and e of an RSA key have no leading zeros, and there are no coordinates")
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 {
		return nil, unsupported("RSA exponents have at most 31 bits here")
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	return key, checkRSA(key)
}

// octets decodes a base64url value that has one form only and at least one byte.
func octets(name, text string) ([]byte, error) {
	value, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(value) == 0 || base64.RawURLEncoding.EncodedLen(len(value)) != len(text) {
		return nil, invalid("JWK member %q is not base64url without padding", name)
	}
	return value, nil
}

// check says whether alg and use fit the key.
func (k JWK) check(m jwkMembers) error {
	_, agreement := k.Public.(*ecdh.PublicKey)
	switch {
	case k.Use != "" && k.Use != "sig" && k.Use != "enc":
		return invalid("the use of a JWK is sig or enc, not %q", k.Use)
	case agreement && k.Use == "sig":
		return invalid("a key for key agreement does not sign: use is enc")
	case k.agreement() && !agreement && m.KeyType != "RSA":
		return invalid("the JWK is for key agreement or encryption, its key is not")
	case !k.algorithmFits(m, agreement):
		return invalid("alg %q does not fit a key of kty %q, crv %q", k.Algorithm, m.KeyType, m.Curve)
	}
	return nil
}

// algorithmFits compares what is known about an algorithm; JWKs carry many that are of no concern here.
func (k JWK) algorithmFits(m jwkMembers, agreement bool) bool {
	switch k.Algorithm {
	case "":
		return true
	case "ES256":
		return m.Curve == "P-256" && !agreement
	case "ES384":
		return m.Curve == "P-384" && !agreement
	case "ES512":
		return m.Curve == "P-521" && !agreement
	case "ES256K":
		return m.Curve == "secp256k1"
	case "EdDSA", "Ed25519":
		return m.Curve == "Ed25519"
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return m.KeyType == "RSA" && k.Use != "enc"
	case "none", "HS256", "HS384", "HS512":
		return false
	}
	if strings.HasPrefix(k.Algorithm, "ECDH-ES") {
		return agreement
	}
	if strings.HasPrefix(k.Algorithm, "RSA-OAEP") {
		return m.KeyType == "RSA" && k.Use != "sig"
	}
	return true
}
