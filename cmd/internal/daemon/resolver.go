package daemon

import (
	"crypto/x509"
	"fmt"
	"os"

	"holdfast/cmd/internal/config"
	"holdfast/did"
	"holdfast/did/fetch"
	"holdfast/did/jwk"
	"holdfast/did/key"
	"holdfast/did/webvh"
)

// newResolver returns the resolver of all supported methods. It asks the web as a stranger would, the daemon's own DIDs
// included.
func newResolver(cfg config.Resolver) (did.Resolver, error) {
	options := fetch.Options{Pins: cfg.Pins}
	if cfg.Roots != "" {
		pem, err := os.ReadFile(cfg.Roots)
		if err != nil {
			return nil, fmt.Errorf("resolver.roots: %w", err)
		}
		if options.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("resolver.roots: the system's certificates: %w", err)
		}
		if !options.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("resolver.roots: %s holds no certificate in PEM", cfg.Roots)
		}
	}
	return did.Methods{
		key.Method:   key.Resolver{},
		jwk.Method:   jwk.Resolver{},
		webvh.Method: &webvh.Resolver{Fetcher: fetch.New(&options)},
	}, nil
}
