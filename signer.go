package holdfast

import (
	"context"
	"crypto"
	"io"
)

// Signer returns k as a crypto.Signer whose every signature is made under ctx, for code that takes one: crypto/tls,
// crypto/x509, JOSE libraries. The random source given to its Sign method is not used; the device has its own.
func Signer(ctx context.Context, k Key) crypto.Signer { return signer{ctx, k} }

type signer struct {
	ctx context.Context // crypto.Signer has no room for one
	key Key
}

func (s signer) Public() crypto.PublicKey { return s.key.Public() }

func (s signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(s.ctx, digest, opts)
}
