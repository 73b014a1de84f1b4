package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// Report is what evidence that holds says.
type Report struct {
	// KeyName is the TPM's Name of the key: the digest algorithm's identifier and the digest of its public area.
	KeyName []byte

	// AKName is the Name of the attestation key. Evidence is worth as much as the verifier's reason to believe that this
	// key is in a TPM; see the package's comment.
	AKName []byte

	// EK is the endorsement key, nil when the evidence has none.
	EK crypto.PublicKey

	// EKCertificate is the EK's certificate, nil when the evidence has none.
	EKCertificate *x509.Certificate

	// Anchored is set when the EK's certificate chains up to the given roots. It says that the EK is genuine, not that
	// the AK is in the same TPM.
	Anchored bool

	// FirmwareVersion is in the TPM maker's own format.
	FirmwareVersion uint64

	// Clock is the TPM's clock in milliseconds, which runs while it is powered. ClockSafe is unset when it may have gone
	// back since the last orderly shutdown.
	Clock     uint64
	ClockSafe bool

	// ResetCount and RestartCount count power cycles and resumptions. The TPM obfuscates them, and FirmwareVersion, for
	// attestation keys outside the endorsement hierarchy; this one is inside.
	ResetCount   uint32
	RestartCount uint32

	// Created is set when the TPM also certified the creation itself, which it does for wrapped keys. OutsideInfo is then
	// what was named at that moment: the key's identifier.
	Created     bool
	OutsideInfo []byte
}

// verification carries what the steps of VerifyEvidence have found so far.
type verification struct {
	files     map[string][]byte
	challenge []byte
	key, ak   *tpm2.TPMTPublic
	akKey     *ecdsa.PublicKey
	report    Report
}

// VerifyEvidence checks all there is to check in files without a TPM: that the attestation key signed, over challenge and
// all other files, that it has the key in pub loaded (any type that [holdfast.Key.Public] returns), that the key cannot
// leave and was generated inside, and that it either signs or agrees, not both. With roots, the EK's certificate has to
// be there and to chain up to them; nil roots leave that open, and Report.Anchored unset.
//
// It returns ErrIntegrity for evidence that does not hold and ErrInvalid for a challenge of the wrong size.
func VerifyEvidence(
	files map[string][]byte, challenge []byte, pub crypto.PublicKey, roots *x509.CertPool,
) (Report, error) {
	if len(challenge) != ChallengeSize {
		return Report{}, holdfast.Errorf(holdfast.ErrInvalid, "verify evidence", "a challenge has %d bytes, not %d",
			ChallengeSize, len(challenge))
	}
	v := &verification{files: files, challenge: challenge}
	for _, step := range []func() error{
		v.checkAK,
		func() error { return v.checkKey(pub) },
		v.checkCertify,
		v.checkCreation,
		v.checkEK,
		func() error { return v.checkCertificate(roots) },
	} {
		if err := step(); err != nil {
			return Report{}, err
		}
	}
	return v.report, nil
}

// checkAK checks that the attestation key can sign only what its TPM generated.
func (v *verification) checkAK() error {
	var err error
	if v.ak, err = v.public(FileAK); err != nil {
		return err
	}
	template := AKTemplate()
	if !OfTemplate(v.ak, &template) {
		return integrity("%s: the attestation key is not the restricted P-256 signing key it has to be", FileAK)
	}
	if v.akKey, err = eccKey(v.ak); err != nil {
		return integrity("%s: %w", FileAK, err)
	}
	v.report.AKName = Name(v.ak)
	return nil
}

// checkKey checks that the key was generated in the TPM, cannot leave it, and has one use.
func (v *verification) checkKey(pub crypto.PublicKey) error {
	var err error
	if v.key, err = v.public(FileKey); err != nil {
		return err
	}
	key, err := PublicKey(v.key)
	if err != nil {
		return integrity("%s: %w", FileKey, err)
	}
	if !samePublic(key, pub) {
		return integrity("%s: the evidence is about another key", FileKey)
	}
	a := v.key.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return integrity("%s: the key can leave the TPM or was brought into it (fixedTPM %t, fixedParent %t, "+
			"sensitiveDataOrigin %t)", FileKey, a.FixedTPM, a.FixedParent, a.SensitiveDataOrigin)
	}
	if a.Restricted || a.SignEncrypt == a.Decrypt {
		return integrity("%s: the key does not have one use (sign %t, decrypt %t, restricted %t)", FileKey,
			a.SignEncrypt, a.Decrypt, a.Restricted)
	}
	if v.report.KeyName = Name(v.key); v.report.KeyName == nil {
		return integrity("%s: unknown digest algorithm %#x", FileKey, uint16(v.key.NameAlg))
	}
	return nil
}

// checkCertify checks what TPM2_Certify said.
func (v *verification) checkCertify() error {
	attest, err := v.attest(FileCertify, FileSignature, Binding(v.challenge, v.files))
	if err != nil {
		return err
	}
	info, err := attest.Attested.Certify()
	if err != nil {
		return integrity("%s: not a certification: %w", FileCertify, err)
	}
	if !bytes.Equal(info.Name.Buffer, v.report.KeyName) {
		return integrity("%s: the TPM certified another key", FileCertify)
	}
	v.report.FirmwareVersion = attest.FirmwareVersion
	v.report.Clock = attest.ClockInfo.Clock
	v.report.ClockSafe = attest.ClockInfo.Safe
	v.report.ResetCount = attest.ClockInfo.ResetCount
	v.report.RestartCount = attest.ClockInfo.RestartCount
	return nil
}

// checkCreation checks what TPM2_CertifyCreation said, where the evidence has it.
func (v *verification) checkCreation() error {
	data, ok := v.files[FileCreationData]
	if !ok && v.files[FileCreation] == nil && v.files[FileCreationSignature] == nil {
		return nil
	}
	attest, err := v.attest(FileCreation, FileCreationSignature, v.challenge)
	if err != nil {
		return err
	}
	info, err := attest.Attested.Creation()
	if err != nil {
		return integrity("%s: not a certification of a creation: %w", FileCreation, err)
	}
	hash, err := v.key.NameAlg.Hash()
	if err != nil {
		return integrity("%s: %w", FileKey, err)
	}
	h := hash.New()
	h.Write(data)
	if !bytes.Equal(info.ObjectName.Buffer, v.report.KeyName) || !bytes.Equal(info.CreationHash.Buffer, h.Sum(nil)) {
		return integrity("%s: the TPM certified the creation of another key", FileCreation)
	}
	creation, err := parse[tpm2.TPMSCreationData](data)
	if err != nil {
		return integrity("%s: %w", FileCreationData, err)
	}
	v.report.Created = true
	v.report.OutsideInfo = creation.OutsideInfo.Buffer
	return nil
}

// attest reads a TPMS_ATTEST and checks the AK's signature over it, that a TPM generated it, that it carries extraData,
// and that its signer is a primary key of the endorsement hierarchy.
func (v *verification) attest(file, signatureFile string, extraData []byte) (*tpm2.TPMSAttest, error) {
	data, err := v.file(file)
	if err != nil {
		return nil, err
	}
	attest, err := parse[tpm2.TPMSAttest](data)
	if err != nil {
		return nil, integrity("%s: %w", file, err)
	}
	if err := attest.Magic.Check(); err != nil {
		return nil, integrity("%s: not generated by a TPM: %w", file, err)
	}
	if !bytes.Equal(attest.ExtraData.Buffer, extraData) {
		return nil, integrity("%s: made for another challenge, or another file of the evidence was changed", file)
	}
	if !bytes.Equal(attest.QualifiedSigner.Buffer, qualifiedName(v.ak, tpm2.TPMRHEndorsement)) {
		return nil, integrity("%s: the signer is no primary key of the endorsement hierarchy", file)
	}
	if err := v.checkSignature(data, signatureFile); err != nil {
		return nil, err
	}
	return attest, nil
}

// checkSignature checks a TPMT_SIGNATURE of the AK, which is ECDSA with SHA-256, over message.
func (v *verification) checkSignature(message []byte, file string) error {
	data, err := v.file(file)
	if err != nil {
		return err
	}
	signature, err := parse[tpm2.TPMTSignature](data)
	if err != nil {
		return integrity("%s: %w", file, err)
	}
	ecc, err := signature.Signature.ECDSA()
	if err != nil || ecc.Hash != tpm2.TPMAlgSHA256 {
		return integrity("%s: not a signature by ECDSA with SHA-256", file)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer),
	})
	if err != nil {
		return integrity("%s: %w", file, err)
	}
	if !ecdsa.VerifyASN1(v.akKey, holdfast.ES256.Digest(message), der) {
		return integrity("%s: the signature does not verify under %s", file, FileAK)
	}
	return nil
}

// checkEK checks that the endorsement key, where the evidence has one, is one that TPM makers certify.
func (v *verification) checkEK() error {
	if _, ok := v.files[FileEK]; !ok {
		return nil
	}
	ek, err := v.public(FileEK)
	if err != nil {
		return err
	}
	if !isEK(ek) {
		return integrity("%s: not made of a TCG endorsement key template", FileEK)
	}
	if v.report.EK, err = PublicKey(ek); err != nil {
		return integrity("%s: %w", FileEK, err)
	}
	return nil
}

func (v *verification) file(name string) ([]byte, error) {
	data, ok := v.files[name]
	if !ok {
		return nil, integrity("the file %s is missing", name)
	}
	return data, nil
}

func (v *verification) public(name string) (*tpm2.TPMTPublic, error) {
	data, err := v.file(name)
	if err != nil {
		return nil, err
	}
	public, err := ParsePublic(data)
	if err != nil {
		return nil, integrity("%s: %w", name, err)
	}
	return public, nil
}

// Name returns the Name of an object (Part 1, section 16), nil for one of an unknown digest algorithm.
func Name(public *tpm2.TPMTPublic) []byte {
	n, err := tpm2.ObjectName(public)
	if err != nil {
		return nil
	}
	return n.Buffer
}

// qualifiedName returns the Qualified Name of a primary object of a hierarchy (Part 1, section 16).
func qualifiedName(public *tpm2.TPMTPublic, hierarchy tpm2.TPMHandle) []byte {
	hash, err := public.NameAlg.Hash()
	if err != nil {
		return nil
	}
	h := hash.New()
	h.Write(tpm2.PrimaryHandleName(hierarchy))
	own := Name(public)
	h.Write(own)
	return h.Sum(bytes.Clone(own[:2]))
}
