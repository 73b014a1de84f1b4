// Package attestation checks a PIV card's proof that a key was generated in it. It needs no card, no cgo and no daemon:
// a verifier that trusts nobody runs it on files.
//
// The card signs a certificate for the slot's public key with its attestation key (slot F9), whose own certificate the
// maker of the card signed. What cards put into these certificates is not always what crypto/x509 accepts, so the slot's
// certificate is taken apart here, strictly as DER but without an opinion on its serial number, names and validity,
// which the card copies. The maker's certificate has to satisfy crypto/x509.
package attestation

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"holdfast"
)

// Kind is Evidence.Kind of a PIV attestation.
const Kind = "piv-attestation"

// The files of the evidence.
const (
	FileSlot    = "attestation.der"    // the certificate that the card made for the key
	FileCA      = "attestation-ca.der" // the certificate of the card's attestation key
	FileBinding = "binding.sig"        // the key's own signature over the challenge; X25519 keys have none
)

// Report is what the evidence proves about a key.
type Report struct {
	Serial     uint32 // of the card
	Version    string // of its firmware: "5.7.1"
	Slot       string // "9c"; empty where the card does not tell
	FormFactor byte   // as in the card's management application; 0 where the card does not tell

	PIN       holdfast.PINPolicy   // PINDefault where the card does not tell
	Touch     holdfast.TouchPolicy // TouchDefault where the card does not tell
	Biometric bool                 // a fingerprint takes the place of the PIN

	// Anchored is set when the card's attestation key was certified by one of the roots given. Without that the
	// evidence only shows that somebody made it who holds the key.
	Anchored bool

	// Fresh is set when the key signed the challenge, so that the evidence was made after it was known.
	Fresh bool
}

// BindingDigest returns what the key in the card signs to bind the evidence to challenge: the digest, or for EdDSA the
// message. The text before the challenge keeps whoever chooses it from getting a signature over something else.
func BindingDigest(a holdfast.Algorithm, challenge []byte) []byte {
	return bindingAlgorithm(a).Digest(append([]byte("holdfast PIV attestation binding\x00"), challenge...))
}

// bindingAlgorithm is the algorithm by which a key for agreement signs: the same point under ECDSA.
func bindingAlgorithm(a holdfast.Algorithm) holdfast.Algorithm {
	switch a {
	case holdfast.ECDHP256:
		return holdfast.ES256
	case holdfast.ECDHP384:
		return holdfast.ES384
	default:
		return a
	}
}

// Binds reports whether evidence about a key of algorithm a has a binding signature.
func Binds(a holdfast.Algorithm) bool { return bindingAlgorithm(a).Use() == holdfast.UseSign }

// VerifyEvidence checks the files of a PIV attestation: that they are about the key pub of algorithm a, hang together,
// are bound to challenge (32 bytes) and, when roots is not nil, lead to one of roots, which has to hold the
// intermediate certificates of the maker too. It returns ErrInvalid for files that cannot be read or are missing and
// ErrIntegrity for any that do not fit.
func VerifyEvidence(files map[string][]byte, challenge []byte, a holdfast.Algorithm, pub crypto.PublicKey,
	roots *x509.CertPool,
) (Report, error) {
	if len(challenge) != 32 {
		return Report{}, invalid("a challenge has 32 bytes, not %d", len(challenge))
	}
	if err := a.CheckPublic(pub); err != nil {
		return Report{}, err
	}
	if err := checkNames(files, a); err != nil {
		return Report{}, err
	}
	slot, err := parseSlot(files[FileSlot])
	if err != nil {
		return Report{}, err
	}
	ca, err := parseCA(files[FileCA])
	if err != nil {
		return Report{}, err
	}
	report := slot.report
	if err := slot.checkPublic(pub); err != nil {
		return Report{}, err
	}
	if err := slot.checkIssuedBy(ca); err != nil {
		return Report{}, err
	}
	if roots != nil {
		if err := anchor(ca, roots); err != nil {
			return Report{}, err
		}
		report.Anchored = true
	}
	if Binds(a) {
		if err := checkBinding(a, pub, challenge, files[FileBinding]); err != nil {
			return Report{}, err
		}
		report.Fresh = true
	}
	return report, nil
}

// Parse reads what a slot's attestation certificate says, and verifies nothing.
func Parse(der []byte) (Report, error) {
	slot, err := parseSlot(der)
	return slot.report, err
}

func checkNames(files map[string][]byte, a holdfast.Algorithm) error {
	want := map[string]bool{FileSlot: true, FileCA: true, FileBinding: Binds(a)}
	for name, needed := range want {
		if _, ok := files[name]; ok != needed {
			return invalid("the file %s of the evidence is missing, or one too many for %s", name, a)
		}
	}
	for name := range files {
		if _, known := want[name]; !known {
			return invalid("the evidence has a file %q that no PIV attestation has", name)
		}
	}
	return nil
}

// anchor checks that the maker certified the card's attestation key.
func anchor(ca *x509.Certificate, roots *x509.CertPool) error {
	_, err := ca.Verify(x509.VerifyOptions{
		Roots:       roots,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime: validTime(ca),
	})
	if err != nil {
		return broken("the card's attestation certificate leads to none of the roots: %w", err)
	}
	return nil
}

// validTime returns a time at which ca is valid. Cards carry their certificate for life and have no clock: what matters
// is that the maker signed it, not when it is looked at.
func validTime(ca *x509.Certificate) time.Time {
	now := time.Now()
	if now.Before(ca.NotBefore) || now.After(ca.NotAfter) {
		return ca.NotBefore
	}
	return now
}

func checkBinding(a holdfast.Algorithm, pub crypto.PublicKey, challenge, signature []byte) error {
	if point, ok := pub.(*ecdh.PublicKey); ok {
		curve := elliptic.P256()
		if a == holdfast.ECDHP384 {
			curve = elliptic.P384()
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point.Bytes())
		if err != nil {
			return invalid("public key: %w", err)
		}
		pub = key
	}
	if err := holdfast.Verify(bindingAlgorithm(a), pub, BindingDigest(a, challenge), signature); err != nil {
		return broken("the key's signature over the challenge: %w", err)
	}
	return nil
}

func versionText(b []byte) string { return fmt.Sprintf("%d.%d.%d", b[0], b[1], b[2]) }

func slotText(hexadecimal string) (string, bool) {
	b, err := hex.DecodeString(hexadecimal)
	if err != nil || len(b) != 1 {
		return "", false
	}
	return hex.EncodeToString(b), true
}

func invalid(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "verify evidence", format, args...)
}

func broken(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "verify evidence", format, args...)
}
