package tpm

import (
	"context"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// translation says what a response code means to a caller.
type translation struct {
	rc   tpm2.TPMRC
	code holdfast.Code
	text string // what happened and what to do next
}

// translations is the one table from TPM_RC to Code (Part 2, section 6.6). Codes that are not listed are internal errors.
// Where one code means different things to different commands, the command's own function says so before this table.
var translations = [...]translation{
	{tpm2.TPMRCHandle, holdfast.ErrNotFound, "there is no such object in the TPM"},
	{tpm2.TPMRCNVDefined, holdfast.ErrExists, "the persistent handle is taken: choose another"},

	{tpm2.TPMRCAuthFail, holdfast.ErrAuth, "the TPM refused the authValue, and counts the failure"},
	{tpm2.TPMRCBadAuth, holdfast.ErrAuth, "the TPM refused the authValue"},
	{tpm2.TPMRCAuthUnavailable, holdfast.ErrDenied, "the object has a policy, which Holdfast does not know"},
	{tpm2.TPMRCAuthType, holdfast.ErrDenied, "the object has a policy, which Holdfast does not know"},
	{tpm2.TPMRCPolicyFail, holdfast.ErrDenied, "the object's authPolicy is not met"},
	{tpm2.TPMRCPolicy, holdfast.ErrDenied, "the object's authPolicy is not met"},
	{tpm2.TPMRCPCRChanged, holdfast.ErrDenied, "a PCR changed in the meantime"},
	{tpm2.TPMRCLockout, holdfast.ErrLocked, "the TPM's dictionary attack protection takes no authValue for now"},

	{tpm2.TPMRCIntegrity, holdfast.ErrIntegrity, "the blob was edited, or was made by another TPM or before this one was cleared"},
	{tpm2.TPMRCBinding, holdfast.ErrIntegrity, "the blob's public and private half do not belong together"},
	{tpm2.TPMRCSensitive, holdfast.ErrIntegrity, "the blob's private half is damaged"},
	{tpm2.TPMRCTicket, holdfast.ErrIntegrity, "the blob's creation ticket was edited, or the TPM was cleared since"},

	{tpm2.TPMRCECCPoint, holdfast.ErrInvalid, "the point is not on the curve"},
	{tpm2.TPMRCCurve, holdfast.ErrUnsupported, "the TPM does not have the curve"},
	{tpm2.TPMRCAsymmetric, holdfast.ErrUnsupported, "the TPM does not have the algorithm"},
	{tpm2.TPMRCScheme, holdfast.ErrUnsupported, "the TPM or the key does not have the scheme"},
	{tpm2.TPMRCHash, holdfast.ErrUnsupported, "the TPM does not have the hash"},
	{tpm2.TPMRCKeySize, holdfast.ErrUnsupported, "the TPM does not have the key size"},
	{tpm2.TPMRCCommandCode, holdfast.ErrUnsupported, "the TPM does not have the command"},
	{tpm2.TPMRCKey, holdfast.ErrUnsupported, "the key is not of a kind that can do this"},
	{tpm2.TPMRCAttributes, holdfast.ErrUnsupported, "the key's attributes do not allow this"},

	{tpm2.TPMRCNVSpace, holdfast.ErrBusy, "the TPM's non-volatile memory is full: destroy a resident key, or make wrapped ones"},
	{tpm2.TPMRCObjectMemory, holdfast.ErrBusy, "the TPM holds as many objects as it can: another program uses it too; use /dev/tpmrm0"},
	{tpm2.TPMRCObjectHandles, holdfast.ErrBusy, "the TPM has no object handle left"},
	{tpm2.TPMRCSessionMemory, holdfast.ErrBusy, "the TPM holds as many sessions as it can: another program uses it too; use /dev/tpmrm0"},
	{tpm2.TPMRCSessionHandles, holdfast.ErrBusy, "the TPM has no session handle left"},
	{tpm2.TPMRCContextGap, holdfast.ErrBusy, "the TPM has no session context left"},
	{tpm2.TPMRCMemory, holdfast.ErrBusy, "the TPM has no memory left"},
	{tpm2.TPMRCRetry, holdfast.ErrBusy, "the TPM is busy: try again"},
	{tpm2.TPMRCYielded, holdfast.ErrBusy, "the TPM is busy: try again"},
	{tpm2.TPMRCTesting, holdfast.ErrBusy, "the TPM is testing itself: try again"},
	{tpm2.TPMRCNVRate, holdfast.ErrBusy, "the TPM protects its memory from wear: try again later"},
	{tpm2.TPMRCNVUnavailable, holdfast.ErrBusy, "the TPM's memory is not accessible for now: try again"},

	{tpm2.TPMRCInitialize, holdfast.ErrUnavailable, "the TPM was reset and waits for its firmware"},
	{tpm2.TPMRCReboot, holdfast.ErrUnavailable, "the TPM wants a reboot of the machine"},
	{tpm2.TPMRCUpgrade, holdfast.ErrUnavailable, "the TPM is in the middle of a firmware upgrade"},
	{tpm2.TPMRCFailure, holdfast.ErrUnavailable, "the TPM failed its self-test: power the machine off and on"},
	{tpm2.TPMRCReferenceH0, holdfast.ErrUnavailable, "the TPM lost the loaded object"},
	{tpm2.TPMRCReferenceH1, holdfast.ErrUnavailable, "the TPM lost the loaded object"},
	{tpm2.TPMRCReferenceS0, holdfast.ErrUnavailable, "the TPM lost the session"},
	{tpm2.TPMRCReferenceS1, holdfast.ErrUnavailable, "the TPM lost the session"},
	{tpm2.TPMRCHierarchy, holdfast.ErrUnavailable, "the hierarchy is disabled: enable it in the firmware setup"},
	{tpm2.TPMRCDisabled, holdfast.ErrUnavailable, "the command is disabled"},
	{tpm2.TPMRCLocality, holdfast.ErrUnavailable, "the command is not allowed from here"},
}

// translate turns what a command returned into the error of an operation. An *Error from deeper down gets the operation
// and the ref; the end of a context passes through.
func translate(op string, ref holdfast.Ref, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if e, ok := errors.AsType[*holdfast.Error](err); ok {
		return &holdfast.Error{Op: op, Ref: ref, Code: e.Code, Retries: e.Retries, Err: e.Err}
	}
	e := holdfast.Errorf(holdfast.ErrInternal, op, "%w", err)
	if _, ok := errors.AsType[*lostError](err); ok {
		e = holdfast.Errorf(holdfast.ErrUnavailable, op, "%w", err)
	} else if errors.Is(err, errForged) {
		e = holdfast.Errorf(holdfast.ErrIntegrity, op, "%w: something between here and the TPM changes messages", err)
	}
	for _, t := range translations {
		if errors.Is(err, t.rc) {
			e = holdfast.Errorf(t.code, op, "%s: %w", t.text, err)
			break
		}
	}
	e.Ref = ref
	return e
}

// isLost reports whether err means that connection, session or loaded objects are gone or are not what they were, so
// that the command can be given again on a new connection. TPM_RC_BAD_AUTH is among them: Holdfast's own keys have no
// authValue to get wrong, so the session or the object's Name was another. Unlike TPM_RC_AUTH_FAIL it never counts
// towards a lockout.
func isLost(err error) bool {
	if _, ok := errors.AsType[*holdfast.Error](err); ok {
		return false // somebody has judged it already
	}
	if _, ok := errors.AsType[*lostError](err); ok {
		return true
	}
	for _, rc := range []tpm2.TPMRC{
		tpm2.TPMRCInitialize, tpm2.TPMRCBadAuth,
		tpm2.TPMRCReferenceH0, tpm2.TPMRCReferenceH1, tpm2.TPMRCReferenceH2,
		tpm2.TPMRCReferenceS0, tpm2.TPMRCReferenceS1, tpm2.TPMRCReferenceS2,
	} {
		if errors.Is(err, rc) {
			return true
		}
	}
	return errors.Is(err, errForged)
}

// isTimeout reports whether err is that of a TPM that does not answer, which does so no sooner when asked again.
func isTimeout(err error) bool {
	lost, ok := errors.AsType[*lostError](err)
	return ok && lost.timeout()
}
