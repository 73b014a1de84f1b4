package vpiv

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"time"
)

// tbsCertificate is RFC 5280, section 4.1, as far as attestations use it.
type tbsCertificate struct {
	Version    int `asn1:"explicit,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   struct{ NotBefore, NotAfter time.Time }
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Extensions []pkix.Extension `asn1:"explicit,tag:3"`
}

type signedCertificate struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// createCertificate is x509.CreateCertificate for every key a slot may hold. The standard library refuses X25519 keys: it
// certifies the signer's own key then, and that one is replaced.
func createCertificate(template, issuer *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, signer)
	if err == nil {
		return der, nil
	}
	spki, keyErr := x509.MarshalPKIXPublicKey(public)
	if keyErr != nil {
		return nil, errors.Join(err, keyErr)
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, issuer, signer.Public(), signer); err != nil {
		return nil, err
	}
	return replacePublicKey(der, spki, signer)
}

// replacePublicKey returns the certificate with another subjectPublicKeyInfo, signed anew.
func replacePublicKey(der, spki []byte, signer crypto.Signer) ([]byte, error) {
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	var tbs tbsCertificate
	if _, err := asn1.Unmarshal(parsed.RawTBSCertificate, &tbs); err != nil {
		return nil, err
	}
	tbs.PublicKey = asn1.RawValue{FullBytes: spki}
	body, err := asn1.Marshal(tbs)
	if err != nil {
		return nil, err
	}
	hash, ok := signatureHash(parsed.SignatureAlgorithm)
	if !ok {
		return nil, errors.New("attestation key of an algorithm without hash")
	}
	signature, err := crypto.SignMessage(signer, rand.Reader, body, hash)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(signedCertificate{
		TBS:       asn1.RawValue{FullBytes: body},
		Algorithm: tbs.Algorithm,
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
}

// signatureHash is the hash of the algorithms x509.CreateCertificate chooses.
func signatureHash(algorithm x509.SignatureAlgorithm) (hash crypto.Hash, ok bool) {
	switch algorithm {
	case x509.ECDSAWithSHA256, x509.SHA256WithRSA:
		return crypto.SHA256, true
	case x509.ECDSAWithSHA384:
		return crypto.SHA384, true
	case x509.PureEd25519:
		return 0, true
	}
	return 0, false
}
