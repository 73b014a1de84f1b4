package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast"
)

// ErrorDomain is the domain of the google.rpc.ErrorInfo in every error of the daemon.
const ErrorDomain = "holdfast"

// wireCode is how one holdfast.Code looks on the wire.
type wireCode struct {
	code   holdfast.Code
	reason string // ErrorInfo.reason and the "code" of a problem document
	grpc   codes.Code
	http   int
	retry  bool // the same request may succeed later without anything being changed
}

// wireCodes is the one table from codes to both wires.
var wireCodes = [...]wireCode{
	{holdfast.ErrInternal, "INTERNAL", codes.Internal, http.StatusInternalServerError, false},
	{holdfast.ErrInvalid, "INVALID", codes.InvalidArgument, http.StatusBadRequest, false},
	{holdfast.ErrDenied, "DENIED", codes.PermissionDenied, http.StatusForbidden, false},
	{holdfast.ErrNotFound, "NOT_FOUND", codes.NotFound, http.StatusNotFound, false},
	{holdfast.ErrExists, "EXISTS", codes.AlreadyExists, http.StatusConflict, false},
	{holdfast.ErrState, "STATE", codes.FailedPrecondition, http.StatusConflict, false},
	{holdfast.ErrUnsupported, "UNSUPPORTED", codes.Unimplemented, http.StatusNotImplemented, false},
	{holdfast.ErrAuth, "AUTH", codes.PermissionDenied, http.StatusForbidden, false},
	{holdfast.ErrLocked, "LOCKED", codes.FailedPrecondition, http.StatusLocked, false},
	{holdfast.ErrUnavailable, "UNAVAILABLE", codes.Unavailable, http.StatusServiceUnavailable, true},
	{holdfast.ErrBusy, "BUSY", codes.ResourceExhausted, http.StatusTooManyRequests, true},
	{holdfast.ErrIntegrity, "INTEGRITY", codes.DataLoss, http.StatusInternalServerError, false},
}

func wireCodeOf(c holdfast.Code) wireCode {
	for _, w := range wireCodes {
		if w.code == c {
			return w
		}
	}
	return wireCodes[0]
}

// Reason returns the word for c on both wires, NOT_FOUND for example: the reason of the google.rpc.ErrorInfo and the "code"
// of a problem document.
func Reason(c holdfast.Code) string { return wireCodeOf(c).reason }

// codeOfReason is the way back; ok is false for a reason that is not in the table.
func codeOfReason(reason string) (holdfast.Code, bool) {
	for _, w := range wireCodes {
		if w.reason == reason {
			return w.code, true
		}
	}
	return holdfast.ErrInternal, false
}

// statusClientClosed is what nginx made the custom for a caller that went away.
const statusClientClosed = 499

// toStatus translates what custody returned. Callers get the code, the key's ref, the tries left and our sentence; an
// internal error's cause stays in the log.
func toStatus(err error, requestID string) error {
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, "the caller went away")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return status.Error(codes.DeadlineExceeded, "the deadline passed")
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	w := wireCodeOf(holdfast.CodeOf(err))
	info := &errdetails.ErrorInfo{
		Domain:   ErrorDomain,
		Reason:   w.reason,
		Metadata: map[string]string{"request_id": requestID, "retryable": strconv.FormatBool(w.retry)},
	}
	if e, ok := errors.AsType[*holdfast.Error](err); ok {
		if e.Ref != "" {
			info.Metadata["ref"] = string(e.Ref)
		}
		if e.Retries != holdfast.RetriesUnknown && (w.code == holdfast.ErrAuth || w.code == holdfast.ErrLocked) {
			info.Metadata["retries"] = strconv.Itoa(e.Retries)
		}
	}
	st, detailErr := status.New(w.grpc, sentence(err, requestID)).WithDetails(info)
	if detailErr != nil {
		return status.Error(w.grpc, w.code.Error())
	}
	return st.Err()
}

// sentence returns what a caller may read of err. where says how the daemon's log names what an internal error leaves out.
func sentence(err error, where string) string {
	if holdfast.CodeOf(err) == holdfast.ErrInternal {
		return "internal error; the daemon's log has the cause under " + where
	}
	return clip(err)
}

// maxSentence is the longest error, in bytes, that is told or logged: errors quote what was asked for, which may be of
// MaxRequest bytes, and the log is not for callers to fill.
const maxSentence = 2048

func clip(err error) string {
	text := err.Error()
	if len(text) > maxSentence {
		text = strings.ToValidUTF8(text[:maxSentence], "") + "…"
	}
	return text
}

// FromStatus translates an error of a gRPC call back to what the backend returned. Errors that are not the daemon's are
// ErrUnavailable when the daemon cannot be reached.
func FromStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != ErrorDomain {
			continue
		}
		code, ok := codeOfReason(info.GetReason())
		if !ok {
			break
		}
		e := &holdfast.Error{Code: code, Retries: holdfast.RetriesUnknown, Err: errors.New(st.Message())}
		if n, err := strconv.Atoi(info.GetMetadata()["retries"]); err == nil {
			e.Retries = n
			e.Err = errors.New(strings.TrimSuffix(st.Message(), triesLeft(n)))
		}
		return e
	}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled:
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the daemon cannot be reached: %s", st.Message())
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.InvalidArgument:
		return holdfast.Errorf(holdfast.ErrInvalid, "", "%s", st.Message())
	case codes.Unimplemented:
		return holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the daemon does not know this call; is it older than this program?")
	case codes.ResourceExhausted:
		return holdfast.Errorf(holdfast.ErrInvalid, "", "the message is too large: %s", st.Message())
	case codes.PermissionDenied, codes.Unauthenticated:
		return holdfast.Errorf(holdfast.ErrDenied, "", "%s", st.Message())
	default:
		return holdfast.Errorf(holdfast.ErrInternal, "", "%s", st.Message())
	}
}

// triesLeft is what holdfast.Error.Error puts at the end of a refused PIN's message, and would put there again.
func triesLeft(n int) string { return " (" + strconv.Itoa(n) + " tries left)" }

// problem is an RFC 9457 problem document.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Code      string `json:"code,omitempty"`
	Ref       string `json:"ref,omitempty"`
	Retries   string `json:"retries,omitempty"`
	Retryable bool   `json:"retryable"`
	RequestID string `json:"request_id,omitempty"`
}

// writeProblem is the gateway's error handler: what interceptors do for gRPC, in HTTP.
func (s *Server) writeProblem(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter,
	r *http.Request, err error) {
	if _, ok := status.FromError(err); !ok {
		id := s.ids.next()
		caller, _ := CallerFrom(ctx)
		s.logFailure(r.Method+" "+r.URL.Path, id, caller, err)
		err = toStatus(err, id)
	}
	st, _ := status.FromError(err)
	p := problem{Type: "about:blank", Status: runtime.HTTPStatusFromCode(st.Code()), Detail: st.Message()}
	if st.Code() == codes.Canceled {
		p.Status = statusClientClosed
	}
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != ErrorDomain {
			continue
		}
		if code, ok := codeOfReason(info.GetReason()); ok {
			p.Status = wireCodeOf(code).http
			p.Title = code.Error()
		}
		meta := info.GetMetadata()
		p.Code, p.Ref, p.Retries, p.RequestID = info.GetReason(), meta["ref"], meta["retries"], meta["request_id"]
		p.Retryable = meta["retryable"] == "true"
	}
	if p.Title == "" {
		p.Title = st.Code().String()
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the caller is gone if this fails
}
