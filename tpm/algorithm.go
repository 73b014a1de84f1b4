package tpm

import (
	"crypto"
	"crypto/ecdsa"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// algorithmInfo says how a TPM is asked for an algorithm.
type algorithmInfo struct {
	algorithm holdfast.Algorithm
	curve     tpm2.TPMECCCurve // 0 for RSA
	scheme    tpm2.TPMAlgID
	hash      tpm2.TPMAlgID
}

// algorithms lists what TPMs can have of Holdfast's algorithms. No TPM has secp256k1 or Curve25519, and RSA-4096 is left to
// other devices: TPMs take minutes for one.
var algorithms = [...]algorithmInfo{
	{holdfast.ES256, tpm2.TPMECCNistP256, tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA256},
	{holdfast.ES384, tpm2.TPMECCNistP384, tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA384},
	{holdfast.ES512, tpm2.TPMECCNistP521, tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA512},
	{holdfast.RS256_2048, 0, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256},
	{holdfast.RS256_3072, 0, tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256},
	{holdfast.PS256_2048, 0, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256},
	{holdfast.PS256_3072, 0, tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256},
	{holdfast.ECDHP256, tpm2.TPMECCNistP256, tpm2.TPMAlgECDH, tpm2.TPMAlgSHA256},
	{holdfast.ECDHP384, tpm2.TPMECCNistP384, tpm2.TPMAlgECDH, tpm2.TPMAlgSHA384},
}

func infoOf(a holdfast.Algorithm) (algorithmInfo, bool) {
	for _, info := range algorithms {
		if info.algorithm == a {
			return info, true
		}
	}
	return algorithmInfo{}, false
}

// template returns what a key of algorithm a is made of: all attributes given, none left to the TPM.
func template(a holdfast.Algorithm) (tpm2.TPMTPublic, bool) {
	info, ok := infoOf(a)
	if !ok {
		return tpm2.TPMTPublic{}, false
	}
	public := tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, // born here and stays here
			UserWithAuth: true, // an empty authValue is enough
			NoDA:         true, // and nobody is locked out over it
			SignEncrypt:  a.Use() == holdfast.UseSign,
			Decrypt:      a.Use() == holdfast.UseAgree,
		},
	}
	if info.curve != 0 {
		public.Type = tpm2.TPMAlgECC
		public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme:  tpm2.TPMTECCScheme{Scheme: info.scheme, Details: info.details()},
			CurveID: info.curve,
		})
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, new(tpm2.TPMSECCPoint))
		return public, true
	}
	public.Type = tpm2.TPMAlgRSA
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme:  tpm2.TPMTRSAScheme{Scheme: info.scheme, Details: info.details()},
		KeyBits: tpm2.TPMKeyBits(a.Bits()),
	})
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, new(tpm2.TPM2BPublicKeyRSA))
	return public, true
}

func (i algorithmInfo) details() tpm2.TPMUAsymScheme {
	switch i.scheme {
	case tpm2.TPMAlgECDSA:
		return tpm2.NewTPMUAsymScheme(i.scheme, &tpm2.TPMSSigSchemeECDSA{HashAlg: i.hash})
	case tpm2.TPMAlgRSASSA:
		return tpm2.NewTPMUAsymScheme(i.scheme, &tpm2.TPMSSigSchemeRSASSA{HashAlg: i.hash})
	case tpm2.TPMAlgRSAPSS:
		return tpm2.NewTPMUAsymScheme(i.scheme, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: i.hash})
	default:
		return tpm2.NewTPMUAsymScheme(i.scheme, &tpm2.TPMSKeySchemeECDH{HashAlg: i.hash})
	}
}

// algorithmOf returns the algorithm and the public key of a key that may have been made by another program. A key that
// does more than one thing gets the algorithm most use it for: signing before agreement, PKCS #1 v1.5 before PSS.
func algorithmOf(public *tpm2.TPMTPublic) (holdfast.Algorithm, crypto.PublicKey, error) {
	key, err := attestation.PublicKey(public)
	if err != nil {
		return "", nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "Holdfast has no algorithm for this key: %w", err)
	}
	scheme, hash := schemeOf(public)
	for _, info := range algorithms {
		if info.matches(public, scheme, hash) {
			if info.algorithm.Use() == holdfast.UseAgree {
				key, err = key.(*ecdsa.PublicKey).ECDH()
			}
			return info.algorithm, key, err
		}
	}
	return "", nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
		"Holdfast has no algorithm for this key (type %#x, scheme "+
			"%#x, hash %#x)", uint16(public.Type), uint16(scheme), uint16(hash))
}

// matches reports whether a key can be used as i says. Scheme and hash are TPM_ALG_NULL for a key that leaves them open.
func (i algorithmInfo) matches(public *tpm2.TPMTPublic, scheme, hash tpm2.TPMAlgID) bool {
	if scheme != tpm2.TPMAlgNull && (scheme != i.scheme || i.algorithm.Use() == holdfast.UseSign && hash != i.hash) {
		return false
	}
	if public.ObjectAttributes.Restricted ||
		i.algorithm.Use() == holdfast.UseSign && !public.ObjectAttributes.SignEncrypt ||
		i.algorithm.Use() == holdfast.UseAgree && !public.ObjectAttributes.Decrypt {
		return false
	}
	if ecc, err := public.Parameters.ECCDetail(); err == nil {
		return ecc.CurveID == i.curve
	}
	rsa, err := public.Parameters.RSADetail()
	return err == nil && i.curve == 0 && int(rsa.KeyBits) == i.algorithm.Bits()
}

// schemeOf returns the scheme that is fixed in a key, and its hash.
func schemeOf(public *tpm2.TPMTPublic) (scheme, hash tpm2.TPMAlgID) {
	var details tpm2.TPMUAsymScheme
	if ecc, err := public.Parameters.ECCDetail(); err == nil {
		scheme, details = ecc.Scheme.Scheme, ecc.Scheme.Details
	} else if rsa, err := public.Parameters.RSADetail(); err == nil {
		scheme, details = rsa.Scheme.Scheme, rsa.Scheme.Details
	}
	hash = tpm2.TPMAlgNull
	if d, err := details.ECDSA(); err == nil {
		hash = d.HashAlg
	} else if d, err := details.RSASSA(); err == nil {
		hash = d.HashAlg
	} else if d, err := details.RSAPSS(); err == nil {
		hash = d.HashAlg
	}
	return scheme, hash
}
