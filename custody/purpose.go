package custody

import (
	"slices"
	"strings"

	"holdfast"
)

// Purpose says what a key is for. One key has one purpose, for ever.
type Purpose string

// The purposes.
const (
	PurposeDIDControl    Purpose = "did-control"
	PurposeDIDNext       Purpose = "did-next"
	PurposeDIDAuth       Purpose = "did-auth"
	PurposeAssertion     Purpose = "assertion"
	PurposePairwise      Purpose = "pairwise"
	PurposeKeyAgreement  Purpose = "key-agreement"
	PurposeRecoveryToken Purpose = "recovery-token"
	PurposeWalletKEK     Purpose = "wallet-kek"
	PurposeBackupKEK     Purpose = "backup-kek"
	PurposeShareHolder   Purpose = "share-holder"
	PurposeAuditSign     Purpose = "audit-sign"
	PurposeOperator      Purpose = "operator"
	PurposeTransport     Purpose = "transport"
)

type purposeInfo struct {
	purpose Purpose
	uses    []holdfast.Use
	text    string
}

// purposes is the closed table of purposes, in the order documentation lists them.
var purposes = [...]purposeInfo{
	{PurposeDIDControl, sign, "updates and rotates a DID"},
	{PurposeDIDNext, sign, "takes over from did-control; only its hash is published until then"},
	{PurposeDIDAuth, sign, "authenticates as a DID"},
	{PurposeAssertion, sign, "signs credentials and documents"},
	{PurposePairwise, sign, "signs for one relationship"},
	{PurposeKeyAgreement, agree, "agrees on keys to decrypt messages and wallets"},
	{PurposeRecoveryToken, sign, "authorises the recovery of a DID"},
	{PurposeWalletKEK, encryptOrAgree, "encrypts the keys of a wallet"},
	{PurposeBackupKEK, encryptOrAgree, "encrypts the keys of backups"},
	{PurposeShareHolder, agree, "decrypts the shares that a trustee or escrow agent holds"},
	{PurposeAuditSign, sign, "signs checkpoints of the audit log"},
	{PurposeOperator, sign, "approves acts of other people"},
	{PurposeTransport, signOrAgree, "protects a connection (mTLS, DIDComm)"},
}

// The uses a purpose may have.
var (
	sign           = []holdfast.Use{holdfast.UseSign}
	agree          = []holdfast.Use{holdfast.UseAgree}
	signOrAgree    = []holdfast.Use{holdfast.UseSign, holdfast.UseAgree}
	encryptOrAgree = []holdfast.Use{holdfast.UseEncrypt, holdfast.UseAgree}
)

// Purposes returns all purposes in the order documentation lists them.
func Purposes() []Purpose {
	list := make([]Purpose, len(purposes))
	for i := range purposes {
		list[i] = purposes[i].purpose
	}
	return list
}

// ParsePurpose returns the purpose called s, ErrInvalid with the choices for anything else.
func ParsePurpose(s string) (Purpose, error) {
	if p := Purpose(s); p.Valid() {
		return p, nil
	}
	return "", holdfast.Errorf(holdfast.ErrInvalid, "", "unknown purpose %q: choose one of %s", s, join(Purposes()))
}

// Valid reports whether p is one of the purposes above.
func (p Purpose) Valid() bool { return p.info().purpose != "" }

// Uses returns the kinds of operation a key of this purpose may be made for.
func (p Purpose) Uses() []holdfast.Use { return slices.Clone(p.info().uses) }

// Text says in a few words what keys of this purpose do.
func (p Purpose) Text() string { return p.info().text }

// Check returns ErrInvalid, with the purposes that fit, when keys of algorithm a cannot have purpose p.
func (p Purpose) Check(a holdfast.Algorithm) error {
	if !p.Valid() {
		_, err := ParsePurpose(string(p))
		return err
	}
	if slices.Contains(p.info().uses, a.Use()) {
		return nil
	}
	return holdfast.Errorf(holdfast.ErrInvalid, "", "a %s key (%s) cannot have the purpose %s: choose one of %s",
		a, a.Use(), p, join(PurposesFor(a)))
}

// PurposesFor returns the purposes that keys of algorithm a may have.
func PurposesFor(a holdfast.Algorithm) []Purpose {
	return slices.DeleteFunc(Purposes(), func(p Purpose) bool { return !slices.Contains(p.info().uses, a.Use()) })
}

func (p Purpose) info() purposeInfo {
	i := slices.IndexFunc(purposes[:], func(e purposeInfo) bool { return e.purpose == p })
	if i < 0 {
		return purposeInfo{}
	}
	return purposes[i]
}

func join(list []Purpose) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}
