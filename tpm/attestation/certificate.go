package attestation

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"
)

// oidSubjectAltName is critical in EK certificates, whose subject is empty, and has a directoryName that crypto/x509 does
// not process (TCG EK Credential Profile, section 3.2.9).
var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// checkCertificate checks the endorsement key's certificate against the EK and, when there are roots, its chain.
func (v *verification) checkCertificate(roots *x509.CertPool) error {
	der, ok := v.files[FileEKCertificate]
	if !ok {
		if roots != nil {
			return integrity("the file %s is missing: the TPM cannot be shown to be genuine", FileEKCertificate)
		}
		return nil
	}
	certificate, err := ParseEKCertificate(der)
	if err != nil {
		return integrity("%s: %w", FileEKCertificate, err)
	}
	if v.report.EK == nil || !samePublic(v.report.EK, certificate.PublicKey) {
		return integrity("%s: the certificate is not for the key in %s", FileEKCertificate, FileEK)
	}
	v.report.EKCertificate = certificate
	if roots == nil {
		return nil
	}
	intermediates := x509.NewCertPool()
	if err := addChain(intermediates, v.files[FileEKChain]); err != nil {
		return err
	}
	if _, err := certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return integrity("%s: %w", FileEKCertificate, err)
	}
	v.report.Anchored = true
	return nil
}

// ParseEKCertificate parses an endorsement key's certificate in DER, and marks as handled the critical subjectAltName that
// names the TPM's maker and model.
func ParseEKCertificate(der []byte) (*x509.Certificate, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	certificate.UnhandledCriticalExtensions = slices.DeleteFunc(certificate.UnhandledCriticalExtensions,
		func(id asn1.ObjectIdentifier) bool { return id.Equal(oidSubjectAltName) })
	return certificate, nil
}

func addChain(pool *x509.CertPool, chain []byte) error {
	for len(chain) > 0 {
		block, rest := pem.Decode(chain)
		if block == nil {
			return integrity("%s: not PEM", FileEKChain)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return integrity("%s: %w", FileEKChain, err)
		}
		pool.AddCert(certificate)
		chain = rest
	}
	return nil
}
