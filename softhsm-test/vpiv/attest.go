package vpiv

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// CA issues attestation certificates, as the maker of cards does.
type CA struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

// attestationYears is how long the certificates of a CA and its cards are valid.
const attestationYears = 30

// NewCA makes a CA with a key of its own.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: randomSerial(),
		Subject:      pkix.Name{CommonName: "Virtual PIV Attestation Root"},
		NotBefore:    from, NotAfter: from.AddDate(attestationYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{key, certificate}, nil
}

// Certificate returns the root that attestations of the CA's cards verify against.
func (ca *CA) Certificate() *x509.Certificate { return ca.certificate }

// installAttestationKey puts a key into F9 and its certificate into the object 5FFF01, as the maker does.
func (c *Card) installAttestationKey(ca *CA) error {
	if ca == nil {
		own, err := NewCA()
		if err != nil {
			return err
		}
		ca = own
	}
	private, err := generateKey(algP256)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: randomSerial(),
		Subject:      pkix.Name{CommonName: fmt.Sprintf("Virtual PIV Attestation %d", c.state.serial)},
		NotBefore:    ca.certificate.NotBefore, NotAfter: ca.certificate.NotAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, private.public(), ca.key)
	if err != nil {
		return err
	}
	c.state.root = ca.certificate.Raw
	c.state.keys[slotAttestation] = &slotKey{algP256, pinNever, touchNever, originImported, private}
	c.state.objects[objAttestation] = certificateObject(der)
	return nil
}

// certificateObject wraps an uncompressed certificate: SP 800-73-4 part 1, table 10.
func certificateObject(der []byte) []byte {
	out := appendTLV(nil, tagCertificate, der)
	out = appendTLV(out, 0x71, []byte{0})
	return appendTLV(out, 0xFE, nil)
}

const tagCertificate = 0x70

// The extensions of an attestation certificate. Except for the serial number their values are bare bytes and not DER.
var (
	extVersion    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	extSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	extPolicy     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	extFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
)

// attest is the extension ATTEST: a certificate, signed with F9, that says the key in slot P1 was generated on the card.
func (c *Card) attest(cmd command) ([]byte, status) {
	if cmd.p2 != 0 || !isSlot(cmd.p1) || cmd.p1 == slotAttestation {
		return nil, swWrongP1P2
	}
	key, signer := c.state.keys[cmd.p1], c.state.keys[slotAttestation]
	if key == nil || key.origin != originGenerated || signer == nil {
		return nil, swWrongData
	}
	der, err := c.attestation(cmd.p1, key, signer)
	if err != nil {
		return nil, swWrongData // the attestation certificate was replaced by one that cannot issue
	}
	return der, swOK
}

func (c *Card) attestation(slot byte, key, signer *slotKey) ([]byte, error) {
	objects, ok := parseTLVs(c.state.objects[objAttestation])
	der, has := findTLV(objects, tagCertificate)
	if !ok || !has {
		return nil, errors.New("no attestation certificate")
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	serial, err := asn1.Marshal(int64(c.state.serial))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: randomSerial(),
		Subject:      pkix.Name{CommonName: fmt.Sprintf("YubiKey PIV Attestation %x", slot)},
		NotBefore:    issuer.NotBefore, NotAfter: issuer.NotAfter,
		ExtraExtensions: []pkix.Extension{
			{Id: extVersion, Value: c.state.version[:]},
			{Id: extSerial, Value: serial},
			{Id: extPolicy, Value: []byte{key.pin, key.touch}},
			{Id: extFormFactor, Value: []byte{c.state.formFactor}},
		},
	}
	with, ok := signer.private.stored().(crypto.Signer)
	if !ok {
		return nil, errors.New("the attestation key does not sign")
	}
	return createCertificate(template, issuer, key.private.public(), with)
}

// randomSerial returns a positive certificate serial number of 16 bytes.
func randomSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] = b[0]&0x7F | 0x40
	return new(big.Int).SetBytes(b)
}
