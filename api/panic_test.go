package api

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/zap"

	"holdfast"
)

func TestPanicIsOneRequestsOwn(t *testing.T) {
	s := &Server{cfg: Config{Logger: zap.NewNop()}}
	_, err := s.guarded(t.Context(), nil, func(context.Context, any) (any, error) { panic("x") })
	if !errors.Is(err, holdfast.ErrInternal) {
		t.Errorf("got %v", err)
	}
}
