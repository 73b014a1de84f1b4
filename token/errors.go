//go:build cgo && !nopiv

package token

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// statusError is a status word (ISO/IEC 7816-4, section 5.6) of a command sent by rawCard.
type statusError uint16

func (e statusError) Error() string { return fmt.Sprintf("smart card error %04x", uint16(e)) }

// Status returns the status word; piv-go's own error has the same method.
func (e statusError) Status() uint16 { return uint16(e) }

// The status words that the code below looks at; statusCodes has them all.
const (
	swNoInformation   = 0x6300 // VERIFY failed, the card does not say how many tries are left
	swSecurity        = 0x6982 // security status not satisfied
	swBlocked         = 0x6983
	swWrongData       = 0x6A80
	swNotSupported    = 0x6A81
	swObjectNotFound  = 0x6A82
	swFull            = 0x6A84
	swWrongP1P2       = 0x6A86
	swDataNotFound    = 0x6A88
	swUnknownCommand  = 0x6D00
	swUnknownClass    = 0x6E00
	swWrongLength     = 0x6700
	swConditions      = 0x6985
	swMemoryFailure   = 0x6581
	swTriesMask       = 0xFFF0
	swTries           = 0x63C0
	swSecureMessaging = 0x6882
)

// statusCodes is the one translation of status words; 63Cx is ErrAuth as well.
var statusCodes = map[uint16]holdfast.Code{
	swNoInformation:   holdfast.ErrAuth,
	swSecurity:        holdfast.ErrAuth,
	swBlocked:         holdfast.ErrLocked,
	swWrongData:       holdfast.ErrInvalid,
	swWrongLength:     holdfast.ErrInvalid,
	swNotSupported:    holdfast.ErrUnsupported,
	swWrongP1P2:       holdfast.ErrUnsupported,
	swUnknownCommand:  holdfast.ErrUnsupported,
	swUnknownClass:    holdfast.ErrUnsupported,
	swSecureMessaging: holdfast.ErrUnsupported,
	swObjectNotFound:  holdfast.ErrNotFound,
	swDataNotFound:    holdfast.ErrNotFound,
	swFull:            holdfast.ErrBusy,
	swConditions:      holdfast.ErrState,
	swMemoryFailure:   holdfast.ErrInternal,
}

// statusOf returns the status word in err, 0 if there is none. piv-go hides it in a text in one place, storing a
// certificate.
func statusOf(err error) uint16 {
	if e, ok := errors.AsType[interface {
		error
		Status() uint16
	}](err); ok {
		return e.Status()
	}
	if err == nil {
		return 0
	}
	_, rest, ok := strings.Cut(err.Error(), "smart card error ")
	if !ok || len(rest) < 4 {
		return 0
	}
	sw, _ := strconv.ParseUint(rest[:4], 16, 16)
	return uint16(sw)
}

// gone reports whether err says that the connection to the card is dead. piv-go's type for PC/SC errors has neither an
// exported name nor a code, only these texts.
func gone(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[pcscError](err); ok {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "transmitting request") || strings.Contains(text, "scard response too short") ||
		strings.Contains(text, "non-existent transaction")
}

// notOffered reports whether err says that the card has no such command, or not for such a key. Cards answer so in
// spite of what their version promises.
func notOffered(err error) bool {
	sw := statusOf(err)
	return sw == swUnknownCommand || sw == swUnknownClass || sw == swNotSupported
}

// translate turns what PC/SC, the card and piv-go said into an *holdfast.Error. Errors of a context pass through.
func translate(op string, ref holdfast.Ref, err error) error {
	if err == nil {
		return nil
	}
	if ours, ok := errors.AsType[*holdfast.Error](err); ok {
		filled := *ours
		if filled.Op == "" {
			filled.Op = op
		}
		if filled.Ref == "" {
			filled.Ref = ref
		}
		return &filled
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &holdfast.Error{Op: op, Ref: ref, Code: holdfast.ErrInternal, Retries: holdfast.RetriesUnknown, Err: err}
	sw := statusOf(err)
	switch code, known := statusCodes[sw]; {
	case errors.Is(err, pcscSharing):
		e.Code = holdfast.ErrBusy
	case gone(err):
		e.Code = holdfast.ErrUnavailable
	case known:
		e.Code = code
	case sw&swTriesMask == swTries || sw&swTriesMask == swNoInformation:
		e.Code = holdfast.ErrAuth
	}
	if tries, ok := errors.AsType[piv.AuthErr](err); ok && sw != swNoInformation {
		e.Retries = tries.Retries
		if tries.Retries == 0 {
			e.Code = holdfast.ErrLocked
		}
	}
	return e
}
