package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"holdfast"
)

// role is what the certificate object of a slot says about the slot.
type role uint8

const (
	roleNone      role = iota // there is no certificate
	roleForeign               // a certificate of somebody else, or one that cannot be read
	roleKey                   // a key that Holdfast made
	roleHalfMade              // Holdfast is about to make or to destroy a key here, or died doing that
	roleDestroyed             // Holdfast destroyed the key here; the slot is free
)

// mark is what Holdfast writes into a slot's certificate.
type mark struct {
	role      role
	id        keyID
	label     string             // roleKey only
	algorithm holdfast.Algorithm // roleKey only
}

// The organization in the subject of every certificate Holdfast writes, and the organizational units of the two that
// stand for no key; a key's has its algorithm there, because a key type does not say what the key is for.
const (
	markOrganization = "Holdfast"
	unitHalfMade     = "half-made"
	unitDestroyed    = "destroyed"
)

// noExpiry is the notAfter of certificates that do not expire (RFC 5280, section 4.1.2.5).
func noExpiry() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

func (m mark) template() *x509.Certificate {
	subject := pkix.Name{Organization: []string{markOrganization}}
	switch m.role {
	case roleKey:
		subject.CommonName, subject.OrganizationalUnit = m.label, []string{string(m.algorithm)}
	case roleDestroyed:
		subject.CommonName, subject.OrganizationalUnit = "holdfast destroyed", []string{unitDestroyed}
	default:
		subject.CommonName, subject.OrganizationalUnit = "holdfast half-made", []string{unitHalfMade}
	}
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(m.id[:]),
		Subject:      subject,
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), // a card and its readers need no common clock
		NotAfter:     noExpiry(),
	}
}

// readMark returns what cert says; anything not written by Holdfast is foreign.
func readMark(cert *x509.Certificate) mark {
	foreign := mark{role: roleForeign}
	s := cert.Subject
	if len(s.Organization) != 1 || s.Organization[0] != markOrganization || len(s.OrganizationalUnit) != 1 {
		return foreign
	}
	serial := cert.SerialNumber
	if serial == nil || serial.Sign() < 0 || serial.BitLen() > 8*len(keyID{}) {
		return foreign
	}
	m := mark{}
	serial.FillBytes(m.id[:])
	switch unit := s.OrganizationalUnit[0]; unit {
	case unitHalfMade:
		m.role = roleHalfMade
	case unitDestroyed:
		m.role = roleDestroyed
	default:
		m.role, m.label, m.algorithm = roleKey, s.CommonName, holdfast.Algorithm(unit)
		if m.algorithm.CheckPublic(typedPublic(m.algorithm, publicOf(cert))) != nil || holdfast.CheckLabel(m.label) != nil {
			return foreign
		}
	}
	return m
}

// parseMark parses a certificate object's DER and reads its mark.
func parseMark(der []byte) mark {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return mark{role: roleForeign}
	}
	return readMark(cert)
}

// certificate returns the certificate that says m about the slot with public key public. A signature key signs it
// itself, by signer, which proves the key at the same time. Where signer is nil it is signed by a key that is then
// forgotten: a key for agreement is not made to sign, X25519 could not, and a mark without a key has none to sign with
// (public is nil then).
func (m mark) certificate(public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	template := m.template()
	if m.algorithm.JOSE() == "PS256" {
		template.SignatureAlgorithm = x509.SHA256WithRSAPSS
	}
	if signer != nil {
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	ephemeral, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer := &x509.Certificate{
		Subject: pkix.Name{Organization: []string{markOrganization}, CommonName: "not signed by the key"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, ephemeral.Public(), ephemeral)
	if err == nil && public != nil {
		der, err = replacePublic(der, public, ephemeral)
	}
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// oidECDSAWithSHA256 is that of RFC 5758, section 3.2.
func oidECDSAWithSHA256() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
}

// replacePublic puts public into a certificate and signs it again with the P-256 key issuer: x509.CreateCertificate takes
// no public keys that cannot sign.
func replacePublic(der []byte, public crypto.PublicKey, issuer *ecdsa.PrivateKey) ([]byte, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var tbs asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawTBSCertificate, &tbs); err != nil {
		return nil, err
	}
	tbs.FullBytes = nil
	tbs.Bytes = bytes.Replace(tbs.Bytes, cert.RawSubjectPublicKeyInfo, spki, 1)
	signed, err := asn1.Marshal(tbs)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(signed)
	signature, err := ecdsa.SignASN1(rand.Reader, issuer, digest[:])
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: signed},
		pkix.AlgorithmIdentifier{Algorithm: oidECDSAWithSHA256()},
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
}

// publicOf returns the public key in cert, nil for one of an unknown kind. crypto/x509 leaves Certificate.PublicKey nil
// for X25519.
func publicOf(cert *x509.Certificate) crypto.PublicKey {
	if cert.PublicKey != nil {
		return cert.PublicKey
	}
	public, err := x509.ParsePKIXPublicKey(cert.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil
	}
	return public
}

// typedPublic returns public in the type that holdfast.Key.Public has for a: PIV and X.509 know points on a curve only,
// not what they are for.
func typedPublic(a holdfast.Algorithm, public crypto.PublicKey) crypto.PublicKey {
	if ec, ok := public.(*ecdsa.PublicKey); ok && a.Use() == holdfast.UseAgree {
		if point, err := ec.ECDH(); err == nil {
			return point
		}
	}
	return public
}

// samePublic reports whether a and b are the same point or modulus, whatever their types say it is for.
func samePublic(a, b crypto.PublicKey) bool {
	x, err := x509.MarshalPKIXPublicKey(a)
	if err != nil {
		return false
	}
	y, err := x509.MarshalPKIXPublicKey(b)
	return err == nil && string(x) == string(y)
}

// publicID returns the identifier of a key that Holdfast did not make.
func publicID(public crypto.PublicKey) (keyID, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return keyID{}, err
	}
	sum := sha256.Sum256(der)
	return keyID(sum[:16]), nil
}
