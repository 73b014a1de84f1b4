package evidence

import (
	"crypto/ecdsa"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast"
	"holdfast/internal/pubkey"
	piv "holdfast/token/attestation"
	tpm "holdfast/tpm/attestation"
)

// tpmFiles are the names that files of a TPM's evidence have.
var tpmFiles = [...]string{
	tpm.FileCertify, tpm.FileSignature, tpm.FileKey, tpm.FileAK, tpm.FileEK, tpm.FileEKCertificate, tpm.FileEKChain,
	tpm.FileCreation, tpm.FileCreationSignature, tpm.FileCreationData,
}

// tpm checks what a TPM certifies of a key.
func (v *verification) tpm() error {
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		if !slices.Contains(tpmFiles[:], name) {
			return broken(name, "evidence of the kind %s has no such file", tpm.Kind)
		}
	}
	r, err := tpm.VerifyEvidence(v.files, v.challenge, v.public, v.options.Roots)
	if err != nil {
		return deviceError(err)
	}
	v.say("A TPM's attestation key certified, for this statement, that it has this key loaded (TPM2_Certify).")
	v.say("The key was generated in that TPM and cannot leave it (sensitiveDataOrigin, fixedTPM, fixedParent).")
	if r.Created {
		if hex.EncodeToString(r.OutsideInfo) == v.Key.ID {
			v.say("The TPM also certified the key's creation, under the identifier in the statement (TPM2_CertifyCreation).")
		} else {
			v.say("The TPM also certified the key's creation (TPM2_CertifyCreation).")
		}
	}
	return v.tpmAnchor(r)
}

// tpmAnchor says what the attestation key is worth. The certificate of an endorsement key is public: that it is in the
// bundle does not show that the attestation key is in the same TPM. So it is the attestation key that has to be named.
func (v *verification) tpmAnchor(r tpm.Report) error {
	public, err := tpm.ParsePublic(v.files[tpm.FileAK])
	if err != nil {
		return broken(tpm.FileAK, "%w", err)
	}
	ak, err := tpm.PublicKey(public)
	if err != nil {
		return broken(tpm.FileAK, "%w", err)
	}
	if _, ok := ak.(*ecdsa.PublicKey); !ok {
		return broken(tpm.FileAK, "the attestation key is no elliptic curve key")
	}
	spki, err := pubkey.MarshalSPKI(ak)
	if err != nil {
		return broken(tpm.FileAK, "%w", err)
	}
	v.report.Attestor = ak
	if r.Anchored {
		v.say("The endorsement key's certificate leads to a root that you named: %s.", r.EKCertificate.Issuer)
	}
	v.report.Anchored = v.attested(spki)
	if v.report.Anchored {
		v.say("The attestation key is one that you named.")
		return nil
	}
	v.warn("That the attestation key (Name %x) is in the TPM of that endorsement key cannot be shown offline: "+
		"have the TPM activate a credential for it once (TPM2_ActivateCredential), then name the key.", r.AKName)
	return nil
}

// piv checks what a PIV card certifies of a key.
func (v *verification) piv() error {
	if v.public == nil {
		return broken(FileStatement, "a PIV card has no secret keys")
	}
	r, err := piv.VerifyEvidence(v.files, v.challenge, v.algorithm, v.public, v.options.Roots)
	if err != nil {
		return deviceError(err)
	}
	if err := v.pivPlace(r); err != nil {
		return err
	}
	v.report.Anchored = r.Anchored
	v.say("The attestation key of the PIV card with serial number %d certified that the card generated this key "+
		"(firmware %s).", r.Serial, r.Version)
	v.say("Before each use the card asks for a PIN: %s; for a touch: %s.", r.PIN, r.Touch)
	if r.Anchored {
		v.say("The card's maker certified its attestation key: the certificate leads to a root that you named.")
	}
	if r.Fresh {
		v.say("The key itself signed this statement.")
		return nil
	}
	if len(v.options.Nonce) > 0 {
		return holdfast.Errorf(holdfast.ErrUnsupported, "verify evidence",
			"a %s key on a PIV card cannot show that its evidence was made for a nonce", v.algorithm)
	}
	v.warn("A %s key signs nothing: "+
		"that the name, the purpose and the time in the statement belong to the key is the custodian's word.", v.algorithm)
	return nil
}

// pivPlace checks that the statement names the card and the slot that the card does.
func (v *verification) pivPlace(r piv.Report) error {
	if r.Serial != 0 && !strings.HasPrefix(v.Key.Ref, fmt.Sprintf("piv:serial=%d;", r.Serial)) {
		return broken(FileStatement, "the statement names the key %s, and the card has the serial number %d", v.Key.Ref,
			r.Serial)
	}
	if r.Slot != "" && !strings.Contains(v.Key.Ref, ";slot="+r.Slot+";") {
		return broken(FileStatement, "the statement names the key %s, and the card attests slot %s", v.Key.Ref, r.Slot)
	}
	return nil
}
