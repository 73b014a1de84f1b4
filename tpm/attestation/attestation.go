// Package attestation checks what a TPM 2.0 says of a key: evidence of kind "tpm2-certify", made by package tpm. It is
// pure: no device, no network.
//
// The evidence is a set of files. An attestation key (AK), which signs nothing but what its TPM generated, certifies the
// key (TPM2_Certify) over a value that binds the verifier's challenge and all other files. What follows from it:
//
//   - The key was generated inside a TPM and cannot leave it (fixedTPM, fixedParent, sensitiveDataOrigin), if the AK is
//     inside a TPM.
//   - The AK says of itself that it is (its Qualified Name is of the endorsement hierarchy), which anybody could imitate
//     in software. The endorsement key's (EK) certificate says which TPM is genuine, but nothing ties the AK to it
//     offline: for that, make a credential with [MakeCredential], have it activated by the TPM, and compare. A verifier
//     that did this once may remember the AK's Name, which stays the same.
//
// What it trusts: the roots that its caller gives, and the crypto packages.
package attestation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast"
)

// Kind is the Evidence.Kind that this package reads.
const Kind = "tpm2-certify"

// The files of the evidence. Structures are as the TPM marshals them (TPM 2.0 Library, Part 2), big endian.
const (
	FileCertify           = "certify.bin"       // TPMS_ATTEST of TPM2_Certify over the key
	FileSignature         = "certify.sig"       // TPMT_SIGNATURE of the AK over certify.bin
	FileKey               = "key.pub"           // TPMT_PUBLIC of the key
	FileAK                = "ak.pub"            // TPMT_PUBLIC of the attestation key
	FileEK                = "ek.pub"            // TPMT_PUBLIC of the endorsement key; absent where the TPM does not show one
	FileEKCertificate     = "ek.der"            // the EK's X.509 certificate; absent where the TPM holds none
	FileEKChain           = "ek-chain.pem"      // CA certificates that the TPM holds, in PEM; usually absent
	FileCreation          = "creation.bin"      // TPMS_ATTEST of TPM2_CertifyCreation; only for wrapped keys
	FileCreationSignature = "creation.sig"      // TPMT_SIGNATURE of the AK over creation.bin
	FileCreationData      = "creation-data.bin" // TPMS_CREATION_DATA
)

// ChallengeSize is the length of a challenge.
const ChallengeSize = sha256.Size

// Binding returns the qualifyingData of certify.bin: the SHA-256 of the challenge in hexadecimal and a newline, followed
// by the lines that the command sha256sum prints for all files but certify.bin and certify.sig, in the order of their
// names:
//
//	(echo $CHALLENGE; sha256sum ak.pub … key.pub) | sha256sum
//
// In this way a changed bit in any file shows, also in one that no root vouches for.
func Binding(challenge []byte, files map[string][]byte) []byte {
	var text strings.Builder
	text.WriteString(hex.EncodeToString(challenge) + "\n")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != FileCertify && name != FileSignature {
			fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(files[name]), name)
		}
	}
	sum := sha256.Sum256([]byte(text.String()))
	return sum[:]
}

// integrity returns the error of evidence that does not hold.
func integrity(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "verify evidence", format, args...)
}
