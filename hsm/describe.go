//go:build cgo && !nopkcs11

package hsm

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"slices"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// facts is what an object's attributes say about a key.
type facts struct {
	algorithm holdfast.Algorithm
	public    crypto.PublicKey
	always    bool // CKA_ALWAYS_AUTHENTICATE
}

// describe reads what key o is. objects are all known objects, its public half and certificates among them. It returns
// ErrUnsupported for a key that has no algorithm here, or no public half anywhere.
func (s *session) describe(o object, objects []object) (facts, error) {
	values, err := s.read(o.handle, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_SIGN, pkcs11.CKA_DERIVE, pkcs11.CKA_ENCRYPT,
		pkcs11.CKA_DECRYPT, pkcs11.CKA_ALWAYS_AUTHENTICATE, pkcs11.CKA_ALLOWED_MECHANISMS)
	if err != nil {
		return facts{}, err
	}
	f := facts{always: values.is(pkcs11.CKA_ALWAYS_AUTHENTICATE, true)}
	if o.class == pkcs11.CKO_SECRET_KEY {
		f.algorithm, err = s.secretAlgorithm(o, values)
		return f, err
	}
	kind, _ := values.ulong(pkcs11.CKA_KEY_TYPE)
	if kind == pkcs11.CKK_RSA {
		return s.describeRSA(f, o, objects, values)
	}
	return s.describeCurve(f, o, objects, kind, values)
}

func (s *session) secretAlgorithm(o object, values attributes) (holdfast.Algorithm, error) {
	length, err := s.read(o.handle, pkcs11.CKA_VALUE_LEN)
	if returned(err, handleValues[:]...) || returned(err, lostValues[:]...) {
		return "", err
	}
	size, _ := length.ulong(pkcs11.CKA_VALUE_LEN)
	kind, _ := values.ulong(pkcs11.CKA_KEY_TYPE)
	if kind != pkcs11.CKK_AES || size != 32 || !values.is(pkcs11.CKA_ENCRYPT, true) || !values.is(pkcs11.CKA_DECRYPT, true) {
		return "", holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the secret key %q is not an AES-256 key that encrypts and decrypts", o.label)
	}
	return holdfast.A256GCM, nil
}

func (s *session) describeRSA(f facts, o object, objects []object, values attributes) (facts, error) {
	if values.is(pkcs11.CKA_SIGN, false) {
		return f, holdfast.Errorf(holdfast.ErrUnsupported, "", "the RSA key %q does not sign", o.label)
	}
	// An RSA private key object usually has its public half in it.
	pub, err := s.readPublic(holdfast.RS256_2048, o.handle)
	if err != nil {
		if pub, err = s.publicHalf(holdfast.RS256_2048, o, objects); err != nil {
			return f, err
		}
	}
	allowed := parseULongs(values[pkcs11.CKA_ALLOWED_MECHANISMS])
	jose := "RS256"
	if slices.Contains(allowed, pkcs11.CKM_RSA_PKCS_PSS) && !slices.Contains(allowed, pkcs11.CKM_RSA_PKCS) {
		jose = "PS256"
	}
	for _, a := range holdfast.Algorithms() {
		if a.RSA() && a.JOSE() == jose && a.CheckPublic(pub) == nil {
			f.algorithm, f.public = a, pub
			return f, nil
		}
	}
	return f, holdfast.Errorf(holdfast.ErrUnsupported, "",
		"the RSA key %q has a modulus of another length than 2048, 3072 or 4096 bits", o.label)
}

func (s *session) describeCurve(f facts, o object, objects []object, kind uint, values attributes) (facts, error) {
	params, err := s.read(o.handle, pkcs11.CKA_EC_PARAMS)
	if returned(err, handleValues[:]...) || returned(err, lostValues[:]...) {
		return f, err
	}
	c := curveByParams(params[pkcs11.CKA_EC_PARAMS])
	if c == nil || kind != pkcs11.CKK_EC && kind != ckkECEdwards && kind != ckkECMontgomery {
		return f, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the key %q is of a type or on a curve that Holdfast has no algorithm for", o.label)
	}
	// A key that both signs and derives signs here: one key, one algorithm.
	switch {
	case c.sign != "" && !values.is(pkcs11.CKA_SIGN, false):
		f.algorithm = c.sign
	case c.agree != "" && !values.is(pkcs11.CKA_DERIVE, false):
		f.algorithm = c.agree
	default:
		return f, holdfast.Errorf(holdfast.ErrUnsupported, "", "the key %q neither signs nor agrees", o.label)
	}
	f.public, err = s.publicHalf(f.algorithm, o, objects)
	return f, err
}

// publicHalf finds the public key of o: in a public key object or certificate with its CKA_ID (where it has none, its
// CKA_LABEL), or in the private key object itself, which some modules give CKA_EC_POINT. Where several differ, the key
// tells by a signature which is its own; anybody can put public objects on a token.
func (s *session) publicHalf(a holdfast.Algorithm, o object, objects []object) (crypto.PublicKey, error) {
	var found []crypto.PublicKey
	consider := func(pub crypto.PublicKey, err error) {
		if err == nil && pub != nil && !slices.ContainsFunc(found, func(p crypto.PublicKey) bool { return samePublic(p, pub) }) {
			found = append(found, pub)
		}
	}
	for _, other := range objects {
		if o.id != "" && other.id != o.id || o.id == "" && (other.id != "" || other.label != o.label) {
			continue
		}
		switch other.class {
		case pkcs11.CKO_PUBLIC_KEY:
			consider(s.readPublic(a, other.handle))
		case pkcs11.CKO_CERTIFICATE:
			consider(s.certified(a, other.handle))
		}
	}
	if len(found) == 0 {
		consider(s.readPublic(a, o.handle))
	}
	if len(found) > 1 && a.Use() == holdfast.UseSign {
		found = slices.DeleteFunc(found, func(pub crypto.PublicKey) bool { return s.testSign(a, o.handle, pub) != nil })
	}
	if len(found) != 1 {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"%d public keys belong to the private key %q; put its one public key or certificate on the token with the same CKA_ID",
			len(found), o.label)
	}
	return found[0], nil
}

func samePublic(a, b crypto.PublicKey) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// certified returns the public key in a certificate object, if it fits algorithm a.
func (s *session) certified(a holdfast.Algorithm, h pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	values, err := s.read(h, pkcs11.CKA_VALUE)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(values[pkcs11.CKA_VALUE])
	if err != nil {
		return nil, err
	}
	if a.RSA() {
		return cert.PublicKey, nil // the caller looks at the length
	}
	pub := cert.PublicKey
	if k, ok := pub.(*ecdsa.PublicKey); ok && a.Use() == holdfast.UseAgree {
		var agree *ecdh.PublicKey
		if agree, err = k.ECDH(); err != nil {
			return nil, err
		}
		pub = agree
	}
	return pub, a.CheckPublic(pub)
}
