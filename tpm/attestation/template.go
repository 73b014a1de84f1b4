package attestation

import (
	"bytes"
	"encoding/hex"

	"github.com/google/go-tpm/tpm2"
)

// EKTemplate is one of the templates that TPM makers certify endorsement keys of (TCG EK Credential Profile for TPM 2.0,
// annex B).
type EKTemplate struct {
	// CertificateIndex is the NV index that holds the certificate.
	CertificateIndex tpm2.TPMHandle

	// Public is the template.
	Public tpm2.TPMTPublic

	// UserWithAuth is set for the high range: an empty authValue is enough to use the key, where those of the low range
	// want TPM2_PolicySecret(TPM_RH_ENDORSEMENT).
	UserWithAuth bool
}

// The authPolicy of the templates: PolicySecret(TPM_RH_ENDORSEMENT) for the low range, PolicyB for the high range.
const (
	policyA       = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
	policyBSHA256 = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"
	policyBSHA384 = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)

// EKTemplates returns the templates, those that a TPM makes fast first.
func EKTemplates() []EKTemplate {
	return []EKTemplate{
		{0x01c0000a, ekECC(policyA, tpm2.TPMAlgSHA256, tpm2.TPMECCNistP256, 128, 32), false},     // L-2
		{0x01c00014, ekECC(policyBSHA256, tpm2.TPMAlgSHA256, tpm2.TPMECCNistP256, 128, 0), true}, // H-2
		{0x01c00016, ekECC(policyBSHA384, tpm2.TPMAlgSHA384, tpm2.TPMECCNistP384, 256, 0), true}, // H-3
		{0x01c00002, ekRSA(policyA, tpm2.TPMAlgSHA256, 2048, 128, 256), false},                   // L-1
		{0x01c00012, ekRSA(policyBSHA256, tpm2.TPMAlgSHA256, 2048, 128, 0), true},                // H-1
		{0x01c0001c, ekRSA(policyBSHA384, tpm2.TPMAlgSHA384, 3072, 256, 0), true},                // H-6
	}
}

func ekPublic(policy string, nameAlg tpm2.TPMAlgID) tpm2.TPMTPublic {
	digest, _ := hex.DecodeString(policy) // a constant
	return tpm2.TPMTPublic{
		NameAlg: nameAlg,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, AdminWithPolicy: true,
			UserWithAuth: policy != policyA, Restricted: true, Decrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: digest},
	}
}

func ekECC(
	policy string, nameAlg tpm2.TPMAlgID, curve tpm2.TPMECCCurve, aesBits tpm2.TPMKeyBits, unique int,
) tpm2.TPMTPublic {
	public := ekPublic(policy, nameAlg)
	public.Type = tpm2.TPMAlgECC
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aesCFB(aesBits), CurveID: curve})
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, unique)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, unique)},
	})
	return public
}

func ekRSA(policy string, nameAlg tpm2.TPMAlgID, bits, aesBits tpm2.TPMKeyBits, unique int) tpm2.TPMTPublic {
	public := ekPublic(policy, nameAlg)
	public.Type = tpm2.TPMAlgRSA
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aesCFB(aesBits), KeyBits: bits})
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, unique)})
	return public
}

func aesCFB(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// AKTemplate returns the template of the attestation key: a restricted P-256 signing key, a primary of the endorsement
// hierarchy. A TPM makes the same key of it each time, until its endorsement seed changes.
func AKTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, new(tpm2.TPMSECCPoint)),
	}
}

// OfTemplate reports whether public was made of template: whether they are equal but for the key itself.
func OfTemplate(public, template *tpm2.TPMTPublic) bool {
	if public.Type != template.Type {
		return false
	}
	filled := *template
	filled.Unique = public.Unique
	return bytes.Equal(tpm2.Marshal(filled), tpm2.Marshal(*public))
}
