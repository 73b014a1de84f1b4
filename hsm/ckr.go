//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// codes says what every PKCS#11 return value means to a caller; those not listed are ErrInternal. This is the only place
// where that is decided.
var codes = map[pkcs11.Error]holdfast.Code{
	pkcs11.CKR_HOST_MEMORY:   holdfast.ErrBusy,
	pkcs11.CKR_DEVICE_MEMORY: holdfast.ErrBusy,
	pkcs11.CKR_SESSION_COUNT: holdfast.ErrBusy,

	pkcs11.CKR_SLOT_ID_INVALID:           holdfast.ErrUnavailable,
	pkcs11.CKR_DEVICE_ERROR:              holdfast.ErrUnavailable,
	pkcs11.CKR_DEVICE_REMOVED:            holdfast.ErrUnavailable,
	pkcs11.CKR_TOKEN_NOT_PRESENT:         holdfast.ErrUnavailable,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:      holdfast.ErrUnavailable,
	pkcs11.CKR_SESSION_CLOSED:            holdfast.ErrUnavailable,
	pkcs11.CKR_SESSION_HANDLE_INVALID:    holdfast.ErrUnavailable,
	pkcs11.CKR_OBJECT_HANDLE_INVALID:     holdfast.ErrUnavailable,
	pkcs11.CKR_KEY_HANDLE_INVALID:        holdfast.ErrUnavailable,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:  holdfast.ErrUnavailable,
	pkcs11.CKR_USER_NOT_LOGGED_IN:        holdfast.ErrUnavailable,
	pkcs11.CKR_FUNCTION_CANCELED:         holdfast.ErrUnavailable,
	pkcs11.CKR_OPERATION_ACTIVE:          holdfast.ErrUnavailable,
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: holdfast.ErrUnavailable,

	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: holdfast.ErrBusy,
	pkcs11.CKR_USER_TOO_MANY_TYPES:            holdfast.ErrBusy,

	pkcs11.CKR_PIN_INCORRECT:            holdfast.ErrAuth,
	pkcs11.CKR_PIN_INVALID:              holdfast.ErrAuth,
	pkcs11.CKR_PIN_LEN_RANGE:            holdfast.ErrAuth,
	pkcs11.CKR_PIN_LOCKED:               holdfast.ErrLocked,
	pkcs11.CKR_PIN_EXPIRED:              holdfast.ErrLocked,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: holdfast.ErrLocked,

	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:     holdfast.ErrUnsupported,
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:    holdfast.ErrUnsupported,
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:        holdfast.ErrUnsupported,
	pkcs11.CKR_TEMPLATE_INCOMPLETE:        holdfast.ErrUnsupported,
	pkcs11.CKR_TEMPLATE_INCONSISTENT:      holdfast.ErrUnsupported,
	pkcs11.CKR_CURVE_NOT_SUPPORTED:        holdfast.ErrUnsupported,
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:      holdfast.ErrUnsupported,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:     holdfast.ErrUnsupported,
	pkcs11.CKR_MECHANISM_INVALID:          holdfast.ErrUnsupported,
	pkcs11.CKR_MECHANISM_PARAM_INVALID:    holdfast.ErrUnsupported,
	pkcs11.CKR_KEY_SIZE_RANGE:             holdfast.ErrUnsupported,
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:      holdfast.ErrUnsupported,
	pkcs11.CKR_KEY_NOT_WRAPPABLE:          holdfast.ErrUnsupported,
	pkcs11.CKR_KEY_UNEXTRACTABLE:          holdfast.ErrUnsupported,
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:      holdfast.ErrUnsupported,
	pkcs11.CKR_SESSION_READ_ONLY:          holdfast.ErrUnsupported,
	pkcs11.CKR_ACTION_PROHIBITED:          holdfast.ErrUnsupported,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: holdfast.ErrUnsupported,

	pkcs11.CKR_DATA_INVALID:                  holdfast.ErrInvalid,
	pkcs11.CKR_DATA_LEN_RANGE:                holdfast.ErrInvalid,
	pkcs11.CKR_ENCRYPTED_DATA_INVALID:        holdfast.ErrIntegrity,
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE:      holdfast.ErrIntegrity,
	pkcs11.CKR_WRAPPED_KEY_INVALID:           holdfast.ErrIntegrity,
	pkcs11.CKR_WRAPPED_KEY_LEN_RANGE:         holdfast.ErrIntegrity,
	pkcs11.CKR_SIGNATURE_INVALID:             holdfast.ErrIntegrity,
	pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE:     holdfast.ErrUnsupported,
	pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE:       holdfast.ErrUnsupported,
	pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID:   holdfast.ErrUnavailable,
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID: holdfast.ErrUnavailable,
}

// lostValues are the return values after which a session or the whole token has to be opened anew.
var lostValues = [...]pkcs11.Error{
	pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
	pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
	pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_OPERATION_ACTIVE,
}

// handleValues are the return values that mean an object is no longer where it was: it was destroyed by another
// program, or the token was away for a while.
var handleValues = [...]pkcs11.Error{
	pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID,
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
}

// vagueValues are the return values that may mean anything, a token that is away included.
var vagueValues = [...]pkcs11.Error{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED}

// refusedValues are the return values of C_Login by which a token says that the PIN was wrong.
var refusedValues = [...]pkcs11.Error{
	pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_LOCKED,
}

// returned reports whether err carries one of the return values.
func returned(err error, values ...pkcs11.Error) bool {
	ckr, ok := errors.AsType[pkcs11.Error](err)
	return ok && slices.Contains(values, ckr)
}

// ckrName returns the CKR_ name of what a call returned, its number where it has no name.
func ckrName(err error) string {
	if err == nil {
		return "CKR_OK"
	}
	if ckr, ok := errors.AsType[pkcs11.Error](err); ok {
		text := ckr.Error() // "pkcs11: 0x10: CKR_ATTRIBUTE_READ_ONLY"
		if i := strings.Index(text, "CKR_"); i >= 0 {
			return text[i:]
		}
		return fmt.Sprintf("0x%X", uint(ckr))
	}
	return err.Error()
}

// failure translates err, once, to what every backend returns. Errors of an ended context pass through untouched.
func failure(op string, ref holdfast.Ref, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if e, ok := errors.AsType[*holdfast.Error](err); ok {
		translated := *e
		if translated.Op == "" {
			translated.Op = op
		}
		if translated.Ref == "" {
			translated.Ref = ref
		}
		return &translated
	}
	code := holdfast.ErrInternal
	if ckr, ok := errors.AsType[pkcs11.Error](err); ok {
		code = codes[ckr]
	}
	return &holdfast.Error{Op: op, Ref: ref, Code: code, Retries: holdfast.RetriesUnknown, Err: err}
}
