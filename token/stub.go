//go:build !cgo || nopiv

package token

import (
	"context"

	"holdfast"
)

// Backend is not there in this build.
type Backend struct{ holdfast.Backend }

// Open returns ErrUnsupported: this program was built without cgo or with the tag nopiv.
func Open(context.Context, Config) (*Backend, error) {
	return nil, holdfast.Errorf(holdfast.ErrUnsupported, "open",
		"this program was built without PIV support: build it with cgo and without the tag nopiv")
}
