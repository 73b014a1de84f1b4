//go:build !cgo || nopkcs11

package hsm

import (
	"context"
	"iter"

	"holdfast"
)

// Modules are the PKCS#11 modules that one process has loaded: none in this build.
type Modules struct{}

// NewModules returns an empty Modules.
func NewModules() *Modules { return &Modules{} }

// Backend is an open PKCS#11 token. This build has none.
type Backend struct{}

var _ holdfast.Backend = (*Backend)(nil)

func errNotBuilt(op string) error {
	return holdfast.Errorf(holdfast.ErrUnsupported, op,
		"this program was built without PKCS#11: build it with CGO_ENABLED=1 and without the tag nopkcs11")
}

// Open returns ErrUnsupported.
func Open(context.Context, Config) (*Backend, error) { return nil, errNotBuilt("open") }

// Capabilities returns nothing.
func (*Backend) Capabilities() holdfast.Capabilities { return holdfast.Capabilities{Kind: "pkcs11"} }

// Generate returns ErrUnsupported.
func (*Backend) Generate(context.Context, holdfast.KeySpec) (holdfast.Key, error) {
	return nil, errNotBuilt("generate")
}

// Key returns ErrUnsupported.
func (*Backend) Key(context.Context, holdfast.Ref) (holdfast.Key, error) {
	return nil, errNotBuilt("find")
}

// Keys yields ErrUnsupported.
func (*Backend) Keys(context.Context) iter.Seq2[holdfast.Key, error] {
	return func(yield func(holdfast.Key, error) bool) { yield(nil, errNotBuilt("list")) }
}

// Close does nothing.
func (*Backend) Close() error { return nil }
