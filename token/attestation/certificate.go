package attestation

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"

	"holdfast"
)

// rawCertificate is Certificate of RFC 5280, section 4.1, with what nobody here has to understand left as it is.
type rawCertificate struct {
	TBS       rawTBS
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

type rawTBS struct {
	Raw             asn1.RawContent
	Version         int           `asn1:"optional,explicit,default:0,tag:0"`
	Serial          asn1.RawValue // negative or too long on some cards
	Algorithm       asn1.RawValue
	Issuer          asn1.RawValue
	Validity        asn1.RawValue
	Subject         asn1.RawValue
	PublicKey       asn1.RawValue
	IssuerUniqueID  asn1.BitString `asn1:"optional,tag:1"`
	SubjectUniqueID asn1.BitString `asn1:"optional,tag:2"`
	Extensions      []extension    `asn1:"optional,explicit,tag:3"`
}

type extension struct {
	ID       asn1.ObjectIdentifier
	Critical bool `asn1:"optional"`
	Value    []byte
}

// slotCertificate is an attestation certificate for a key in a slot.
type slotCertificate struct {
	raw    rawCertificate
	report Report
}

// maxCertificate bounds what is parsed: an object on a PIV card has at most 3,052 bytes.
const maxCertificate = 8 << 10

// The extensions that cards put into attestation certificates are numbered below 1.3.6.1.4.1.41482.3. Their values are
// bare bytes except the serial number, a DER INTEGER.
const (
	extensionPrefix     = "1.3.6.1.4.1.41482.3."
	extensionVersion    = extensionPrefix + "3"
	extensionSerial     = extensionPrefix + "7"
	extensionPolicy     = extensionPrefix + "8"
	extensionFormFactor = extensionPrefix + "9"
)

// subjectPrefix stands before the slot in the common name of the subject.
const subjectPrefix = "YubiKey PIV Attestation "

func parseSlot(der []byte) (slotCertificate, error) {
	var c slotCertificate
	if len(der) > maxCertificate {
		return c, invalid("the slot's certificate is longer than %d bytes", maxCertificate)
	}
	rest, err := asn1.Unmarshal(der, &c.raw)
	if err != nil {
		return c, invalid("the slot's certificate: %w", err)
	}
	if len(rest) > 0 {
		return c, invalid("something follows the slot's certificate")
	}
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.raw.TBS.Subject.FullBytes, &subject); err == nil && len(rest) == 0 {
		var name pkix.Name
		name.FillFromRDNSequence(&subject)
		if number, ok := strings.CutPrefix(name.CommonName, subjectPrefix); ok {
			c.report.Slot, _ = slotText(number)
		}
	}
	seen := make(map[string]bool)
	for _, e := range c.raw.TBS.Extensions {
		id := e.ID.String()
		if seen[id] {
			return c, invalid("the slot's certificate has the extension %s twice", id)
		}
		seen[id] = true
		if err := c.report.take(id, e.Value); err != nil {
			return c, err
		}
	}
	return c, nil
}

// take reads one extension; those of others are not looked at.
func (r *Report) take(id string, value []byte) error {
	switch id {
	case extensionVersion:
		if len(value) != 3 {
			return invalid("the firmware version has %d bytes", len(value))
		}
		r.Version = versionText(value)
	case extensionSerial:
		var n int64
		rest, err := asn1.Unmarshal(value, &n)
		if err != nil || len(rest) > 0 || n < 0 || n > 1<<32-1 {
			return invalid("the card's serial number is no number of 32 bits")
		}
		r.Serial = uint32(n)
	case extensionPolicy:
		return r.takePolicy(value)
	case extensionFormFactor:
		if len(value) != 1 {
			return invalid("the form factor has %d bytes", len(value))
		}
		r.FormFactor = value[0]
	}
	return nil
}

func (r *Report) takePolicy(value []byte) error {
	if len(value) != 2 || value[0] < 1 || value[0] > 5 || value[1] < 1 || value[1] > 3 {
		return invalid("unknown PIN and touch policy %x", value)
	}
	r.PIN = [...]holdfast.PINPolicy{
		1: holdfast.PINNever, 2: holdfast.PINOnce, 3: holdfast.PINAlways, 4: holdfast.PINOnce, 5: holdfast.PINAlways,
	}[value[0]]
	r.Biometric = value[0] > 3
	r.Touch = [...]holdfast.TouchPolicy{1: holdfast.TouchNever, 2: holdfast.TouchAlways, 3: holdfast.TouchCached}[value[1]]
	return nil
}

// checkPublic checks that the certificate is about pub.
func (c slotCertificate) checkPublic(pub crypto.PublicKey) error {
	want, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return invalid("public key: %w", err)
	}
	if !bytes.Equal(want, c.raw.TBS.PublicKey.FullBytes) {
		return broken("the card attests another key")
	}
	return nil
}

// signatureAlgorithms are those by which attestation keys sign, by object identifier.
var signatureAlgorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
	"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
	"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
}

// checkIssuedBy checks the signature of the card's attestation key.
func (c slotCertificate) checkIssuedBy(ca *x509.Certificate) error {
	tbs := c.raw.TBS
	if !bytes.Equal(tbs.Algorithm.FullBytes, c.raw.Algorithm.FullBytes) {
		return broken("the slot's certificate names two signature algorithms")
	}
	var identifier pkix.AlgorithmIdentifier
	if rest, err := asn1.Unmarshal(tbs.Algorithm.FullBytes, &identifier); err != nil || len(rest) > 0 {
		return invalid("the slot's certificate has no readable signature algorithm")
	}
	algorithm, ok := signatureAlgorithms[identifier.Algorithm.String()]
	if !ok {
		return invalid("the slot's certificate is signed by the unknown algorithm %s", identifier.Algorithm)
	}
	if !bytes.Equal(tbs.Issuer.FullBytes, ca.RawSubject) {
		return broken("the slot's certificate was issued by somebody else than the card")
	}
	if c.raw.Signature.BitLength%8 != 0 {
		return invalid("the signature of the slot's certificate has %d bits", c.raw.Signature.BitLength)
	}
	if err := ca.CheckSignature(algorithm, tbs.Raw, c.raw.Signature.Bytes); err != nil {
		return broken("the slot's certificate was not signed by the card's attestation key: %w", err)
	}
	return nil
}

// parseCA parses the certificate of the attestation key. Some cards leave basicConstraints out of it, so it need not say
// that it is a CA; but a key in a slot, which signs whatever it is given, must not be able to pass for one.
func parseCA(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, invalid("the card's attestation certificate is longer than %d bytes", maxCertificate)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, invalid("the card's attestation certificate: %w", err)
	}
	if ca.BasicConstraintsValid && !ca.IsCA {
		return nil, broken("the card's attestation certificate may not issue others")
	}
	for _, e := range ca.Extensions {
		if e.Id.String() == extensionPolicy {
			return nil, broken("the certificate of a key in a slot is passed off as that of the card's attestation key")
		}
	}
	return ca, nil
}
