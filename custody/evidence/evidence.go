// Package evidence is the bundle of files that proves to a stranger that a key was made inside a device and cannot leave
// it, and its verification without a daemon.
package evidence

import (
	"crypto"
	"crypto/x509"

	"holdfast"
)

// Options say what the verifier knows beforehand. All are optional.
type Options struct {
	// Roots are the certificates that the chain of a TPM's endorsement key or of a PIV card must end in.
	Roots *x509.CertPool

	// TrustedAttestors are the public keys (SubjectPublicKeyInfo, DER) of PKCS#11 attestation keys the verifier knows.
	TrustedAttestors [][]byte

	// ExpectPublic is the key the evidence must be about.
	ExpectPublic crypto.PublicKey

	// Nonce is what the verifier asked the evidence to be made for.
	Nonce []byte
}

// Report says what was checked.
type Report struct {
	Name      string
	Algorithm holdfast.Algorithm
	Purpose   string
	Public    crypto.PublicKey
	Kind      string // "pkcs11-attributes", "tpm2-certify" or "piv-attestation"

	// Lines say, one sentence each, what was checked and who vouches for it.
	Lines []string

	// Anchored is set when the proof ends in something the verifier named: a root, or an attestor.
	Anchored bool
}

// Verify checks a bundle, the files by name.
func Verify(files map[string][]byte, o *Options) (Report, error) {
	return Report{}, holdfast.Errorf(holdfast.ErrUnsupported, "", "evidence is not built yet")
}
