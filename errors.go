package holdfast

import (
	"errors"
	"fmt"
)

// Code says what kind of failure an error is. A Code is itself an error, so that errors.Is(err, holdfast.ErrNotFound)
// works on everything this module returns.
type Code uint8

// The codes. What a caller can do next is the same for all errors of one code.
const (
	ErrInternal    Code = iota // a fault of Holdfast or of a device that has no better code
	ErrInvalid                 // the request can never work as it is
	ErrDenied                  // policy does not allow it
	ErrNotFound                // no such key, backend or DID
	ErrExists                  // the name or place is taken
	ErrState                   // the key is not in a state that allows it
	ErrUnsupported             // this backend cannot do it
	ErrAuth                    // the device refused the PIN or authValue; never retried
	ErrLocked                  // the device, or Holdfast after a refused PIN, takes no more PINs until a person acts
	ErrUnavailable             // the device is away; the same call may work later
	ErrBusy                    // the device has no session, memory or place left
	ErrIntegrity               // stored or returned data is not what was made
)

var codeTexts = [...]string{
	ErrInternal:    "internal error",
	ErrInvalid:     "invalid request",
	ErrDenied:      "denied by policy",
	ErrNotFound:    "not found",
	ErrExists:      "already exists",
	ErrState:       "not possible in this state",
	ErrUnsupported: "not supported",
	ErrAuth:        "the device refused the PIN",
	ErrLocked:      "locked",
	ErrUnavailable: "device unavailable",
	ErrBusy:        "device busy or full",
	ErrIntegrity:   "integrity check failed",
}

// Error returns the code's text.
func (c Code) Error() string {
	if int(c) < len(codeTexts) {
		return codeTexts[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// RetriesUnknown is the value of Error.Retries when the device does not tell.
const RetriesUnknown = -1

// Error is the error every backend returns. Backends translate what the device said exactly once, at their edge.
type Error struct {
	Op      string // the operation: "sign", "generate"
	Ref     Ref    // the key, where there is one
	Code    Code
	Retries int   // PIN tries left, for ErrAuth and ErrLocked; RetriesUnknown where the device does not tell
	Err     error // what happened, for people; may wrap the device's own error
}

// Error returns "op ref: cause"; it says the code's text where there is no cause.
func (e *Error) Error() string {
	s := e.Op
	if e.Ref != "" {
		if s != "" {
			s += " "
		}
		s += string(e.Ref)
	}
	if s != "" {
		s += ": "
	}
	if e.Err != nil {
		s += e.Err.Error()
	} else {
		s += e.Code.Error()
	}
	if e.Code == ErrAuth && e.Retries >= 0 {
		s += fmt.Sprintf(" (%d tries left)", e.Retries)
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is e's code. errors.Is goes on to the cause after that, and finds codes there too; where one
// code has to be told from all others, [CodeOf] has the outermost.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Errorf returns an *Error of code c whose cause is made of format and args as by fmt.Errorf.
func Errorf(c Code, op string, format string, args ...any) *Error {
	return &Error{Op: op, Code: c, Retries: RetriesUnknown, Err: fmt.Errorf(format, args...)}
}

// CodeOf returns the code of the outermost *Error or Code in err's tree, ErrInternal if there is none. Of errors that
// were joined the first that has one counts.
func CodeOf(err error) Code {
	code, _ := codeOf(err)
	return code
}

func codeOf(err error) (Code, bool) {
	for err != nil {
		switch v := err.(type) {
		case *Error:
			return v.Code, true
		case Code:
			return v, true
		case interface{ Unwrap() []error }:
			for _, e := range v.Unwrap() {
				if code, ok := codeOf(e); ok {
					return code, true
				}
			}
			return ErrInternal, false
		}
		err = errors.Unwrap(err)
	}
	return ErrInternal, false
}
