//go:build cgo && !nopiv

package token

import (
	"context"

	"holdfast"
)

var _ holdfast.Examiner = (*Backend)(nil)

// Examine returns the notes of [Backend.Health].
func (b *Backend) Examine(ctx context.Context) ([]string, error) {
	health, err := b.Health(ctx)
	if err != nil {
		return nil, err
	}
	return health.Notes, nil
}
