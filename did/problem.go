package did

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"holdfast"
)

// ProblemType says what went wrong in resolution, in the words of DID Resolution, section 11.
type ProblemType string

// The problem types.
const (
	InvalidDID                 ProblemType = "INVALID_DID"                  // not a DID, or what it names does not verify
	InvalidDIDURL              ProblemType = "INVALID_DID_URL"              // not a DID URL
	InvalidDIDDocument         ProblemType = "INVALID_DID_DOCUMENT"         // the document is not one
	InvalidOptions             ProblemType = "INVALID_OPTIONS"              // options that contradict or make no sense
	NotFound                   ProblemType = "NOT_FOUND"                    // no such DID or version
	RepresentationNotSupported ProblemType = "REPRESENTATION_NOT_SUPPORTED" // no such media type
	MethodNotSupported         ProblemType = "METHOD_NOT_SUPPORTED"         // no such method here
	FeatureNotSupported        ProblemType = "FEATURE_NOT_SUPPORTED"        // an option this method does not have
	InternalError              ProblemType = "INTERNAL_ERROR"               // resolution could not be done
)

type problemInfo struct {
	title  string
	legacy string
	code   holdfast.Code
}

func (t ProblemType) info() problemInfo {
	switch t {
	case InvalidDID:
		return problemInfo{"The DID is invalid.", "invalidDid", holdfast.ErrInvalid}
	case InvalidDIDURL:
		return problemInfo{"The DID URL is invalid.", "invalidDidUrl", holdfast.ErrInvalid}
	case InvalidDIDDocument:
		return problemInfo{"The DID document is invalid.", "invalidDidDocument", holdfast.ErrIntegrity}
	case InvalidOptions:
		return problemInfo{"The resolution options are invalid.", "invalidOptions", holdfast.ErrInvalid}
	case NotFound:
		return problemInfo{"The DID was not found.", "notFound", holdfast.ErrNotFound}
	case RepresentationNotSupported:
		return problemInfo{"The representation is not supported.", "representationNotSupported", holdfast.ErrUnsupported}
	case MethodNotSupported:
		return problemInfo{"The DID method is not supported.", "methodNotSupported", holdfast.ErrUnsupported}
	case FeatureNotSupported:
		return problemInfo{"The feature is not supported.", "featureNotSupported", holdfast.ErrUnsupported}
	default:
		return problemInfo{"The DID could not be resolved.", "internalError", holdfast.ErrInternal}
	}
}

// URL returns the type as a URL, for the member "type" of RFC 9457.
func (t ProblemType) URL() string { return "https://www.w3.org/ns/did#" + string(t) }

// Title returns one sentence that is the same for every problem of the type.
func (t ProblemType) Title() string { return t.info().title }

// Legacy returns the error code of DID Core 1.0, section 7.1.2: invalidDid, notFound.
func (t ProblemType) Legacy() string { return t.info().legacy }

// Code returns the code of Holdfast's errors that the type belongs to.
func (t ProblemType) Code() holdfast.Code { return t.info().code }

// Problem is an error of resolution, ready for RFC 9457. It is the cause of the *holdfast.Error that resolvers return:
// errors.As finds it.
type Problem struct {
	// Type is what kind of problem this is.
	Type ProblemType

	// Detail is one sentence about this occurrence. It may quote what was asked for.
	Detail string

	// Err is the cause, or nil. It is not for the one who asked.
	Err error
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// MarshalJSON returns the members type, title and detail of RFC 9457.
func (p *Problem) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Detail string `json:"detail,omitempty"`
	}{p.Type.URL(), p.Type.Title(), p.Detail})
}

// Problemf returns an *holdfast.Error of t's code whose cause is a [Problem]. The detail is made as by fmt.Errorf; an
// error given for %w becomes the problem's cause.
func Problemf(t ProblemType, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	problem := &Problem{Type: t, Detail: err.Error(), Err: errors.Unwrap(err)}
	return &holdfast.Error{Code: t.Code(), Retries: holdfast.RetriesUnknown, Err: problem}
}

// ProblemOf returns the problem in err, or makes one: any error of a resolver can be shown to the one who asked. A
// device or network that is away is an [InternalError] whose detail does not tell more than that. It returns nil for nil.
func ProblemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Problem{Type: InternalError, Detail: "resolution was given up", Err: err}
	}
	switch holdfast.CodeOf(err) {
	case holdfast.ErrInvalid:
		return &Problem{Type: InvalidDID, Detail: err.Error(), Err: err}
	case holdfast.ErrNotFound:
		return &Problem{Type: NotFound, Detail: "there is no such DID", Err: err}
	case holdfast.ErrUnsupported:
		return &Problem{Type: FeatureNotSupported, Detail: err.Error(), Err: err}
	default:
		return &Problem{Type: InternalError, Detail: "the DID could not be resolved now", Err: err}
	}
}
