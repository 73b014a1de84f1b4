package attestation

import (
	"crypto/rand"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// MaxCredential is the longest secret that every TPM takes back out of a credential: a SHA-256.
const MaxCredential = 32

// Credential is a secret that only the TPM with a certain endorsement key gets back, and only while it holds a certain
// attestation key: TPM2_ActivateCredential does both checks.
type Credential struct {
	// IDObject is the TPMS_ID_OBJECT (Part 2, section 12.4.3) without the size in front of it.
	IDObject []byte

	// EncryptedSeed is the TPM2B_ENCRYPTED_SECRET without the size in front of it.
	EncryptedSeed []byte
}

// MakeCredential does what TPM2_MakeCredential does, without a TPM: it encrypts secret (1 to 32 bytes) to the endorsement
// key in ekPub (a TPMT_PUBLIC, the evidence's ek.pub) for the object of Name akName. A verifier sends the result to the
// TPM's owner; getting secret back proves that the attestation key is in the TPM of that endorsement key. It returns
// ErrInvalid for an ekPub that is no endorsement key and for a secret that is too long.
func MakeCredential(ekPub, akName, secret []byte) (Credential, error) {
	const op = "make credential"
	if len(secret) == 0 || len(secret) > MaxCredential {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, op, "the secret has 1 to %d bytes, not %d", MaxCredential, len(secret))
	}
	if len(akName) < 2 {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, op, "the attestation key's Name is empty")
	}
	ek, err := ParsePublic(ekPub)
	if err == nil {
		_, err = PublicKey(ek)
	}
	if err != nil {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, op, "the endorsement key cannot be read: %w", err)
	}
	if !isEK(ek) {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, op, "the key is not made of a TCG endorsement key template")
	}
	key, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, op, "the endorsement key cannot encrypt: %w", err)
	}
	idObject, seed, err := tpm2.CreateCredential(rand.Reader, key, akName, secret)
	if err != nil {
		return Credential{}, holdfast.Errorf(holdfast.ErrInternal, op, "%w", err)
	}
	return Credential{IDObject: idObject, EncryptedSeed: seed}, nil
}

func isEK(public *tpm2.TPMTPublic) bool {
	for _, t := range EKTemplates() {
		if OfTemplate(public, &t.Public) {
			return true
		}
	}
	return false
}
