package evidence

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"

	"holdfast"
	tpm "holdfast/tpm/attestation"
)

// keepHeader starts what a verifier keeps between asking a TPM and judging its answer. A secret of tpm.MaxCredential bytes
// and the SHA-256 of the keys it was encrypted for follow.
const keepHeader = "holdfast credential 1\n"

// Kind returns the kind of evidence a bundle claims to be: that of the device where no kind of evidence is known for it,
// empty for files that are no bundle.
func Kind(files map[string][]byte) string {
	var statement struct {
		Device struct {
			Kind string `json:"kind"`
		} `json:"device"`
	}
	if json.Unmarshal(files[FileStatement], &statement) != nil {
		return ""
	}
	if kind, known := kinds[statement.Device.Kind]; known {
		return kind
	}
	return statement.Device.Kind
}

// NewCredential makes the one question that a TPM's evidence leaves open: whether its attestation key is in the TPM that
// its endorsement key's certificate is about. The verifier sends credential to the TPM's owner (holdfast.Activator) and
// keeps keep to itself until the answer is there. It returns ErrUnsupported for evidence of other devices and ErrIntegrity
// for a bundle that does not hold.
func NewCredential(files map[string][]byte) (credential, keep []byte, err error) {
	ak, err := tpmAttestor(files, nil)
	if err != nil {
		return nil, nil, err
	}
	if files[tpm.FileEK] == nil {
		return nil, nil, holdfast.Errorf(holdfast.ErrUnsupported, "make credential",
			"the TPM shows no endorsement key (%s)", tpm.FileEK)
	}
	secret := make([]byte, tpm.MaxCredential)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	made, err := tpm.MakeCredential(files[tpm.FileEK], ak.AKName, secret)
	if err != nil {
		return nil, nil, err
	}
	bound := boundKeys(files)
	keep = append([]byte(keepHeader), secret...)
	return made.Marshal(), append(keep, bound[:]...), nil
}

// boundKeys identifies the two keys a credential is for.
func boundKeys(files map[string][]byte) [sha256.Size]byte {
	ek, ak := sha256.Sum256(files[tpm.FileEK]), sha256.Sum256(files[tpm.FileAK])
	return sha256.Sum256(append(ek[:], ak[:]...))
}

// CheckAnswer judges a TPM's answer to [NewCredential]. It returns the TPM's attestation key, proven to be in the TPM
// whose endorsement certificate leads to one of roots; naming it in [Options.TrustedAttestors] anchors all further
// evidence of this TPM. It returns ErrIntegrity when the answer is wrong or was not asked about this bundle's keys.
func CheckAnswer(files map[string][]byte, keep, answer []byte, roots *x509.CertPool) (crypto.PublicKey, error) {
	if roots == nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "check answer", "name the root that the TPM's maker signs with")
	}
	report, err := tpmAttestor(files, roots)
	if err != nil {
		return nil, err
	}
	body, ok := bytes.CutPrefix(keep, []byte(keepHeader))
	if !ok || len(body) != tpm.MaxCredential+sha256.Size {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "check answer",
			"this is not what was kept when the question was made")
	}
	if bound := boundKeys(files); !bytes.Equal(body[tpm.MaxCredential:], bound[:]) {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "check answer",
			"the question was asked about the keys of another bundle")
	}
	if subtle.ConstantTimeCompare(body[:tpm.MaxCredential], answer) != 1 {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "check answer",
			"the answer is wrong: the attestation key is not in that TPM")
	}
	return report.Attestor, nil
}

// attestor is what a bundle says of a TPM's attestation key.
type attestor struct {
	AKName   []byte
	Attestor crypto.PublicKey
}

// tpmAttestor verifies a bundle as far as that goes without an answer.
func tpmAttestor(files map[string][]byte, roots *x509.CertPool) (attestor, error) {
	if kind := Kind(files); kind != tpm.Kind {
		return attestor{}, holdfast.Errorf(holdfast.ErrUnsupported, "activate credential",
			"evidence of the kind %q needs no credential; that of TPMs does", kind)
	}
	report, err := Verify(files, &Options{Roots: roots})
	if err != nil {
		return attestor{}, err
	}
	public, err := tpm.ParsePublic(files[tpm.FileAK])
	if err != nil {
		return attestor{}, broken(tpm.FileAK, "%w", err)
	}
	return attestor{AKName: tpm.Name(public), Attestor: report.Attestor}, nil
}
