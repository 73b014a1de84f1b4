package main

import (
	"holdfast/cmd/internal/config"
	"holdfast/did"
	"holdfast/did/jwk"
	"holdfast/did/key"
)

// newResolver returns the resolver of all supported methods.
func newResolver(cfg config.Resolver) (did.Resolver, error) {
	return did.Methods{key.Method: key.Resolver{}, jwk.Method: jwk.Resolver{}}, nil
}
