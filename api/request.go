package api

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync/atomic"

	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"holdfast"
)

// requestIDs names requests that failed, so that a caller's message can be found in the log. A random start tells one
// run of the daemon from another.
type requestIDs struct {
	run  string
	last *atomic.Uint64
}

func newRequestIDs() requestIDs {
	return requestIDs{run: rand.Text()[:8], last: new(atomic.Uint64)}
}

func (r requestIDs) next() string {
	return r.run + "-" + strconv.FormatUint(r.last.Add(1), 10)
}

// logFailure writes what the caller is told, and the cause that the caller is not told.
func (s *Server) logFailure(op, id string, caller Caller, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	code := holdfast.CodeOf(err)
	if st, ok := status.FromError(err); ok {
		s.cfg.Logger.Warn("request refused", zap.String("op", op), zap.String("request_id", id),
			zap.Uint32("caller", caller.UID), zap.String("code", st.Code().String()), zap.String("error", clip(err)))
		return
	}
	log := s.cfg.Logger.Info
	if code == holdfast.ErrInternal || code == holdfast.ErrIntegrity {
		log = s.cfg.Logger.Error
	}
	log("request failed", zap.String("op", op), zap.String("request_id", id), zap.Uint32("caller", caller.UID),
		zap.String("code", Reason(code)), zap.String("error", clip(err)))
}
