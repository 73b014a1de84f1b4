//go:build cgo && !nopiv

package token_test

import (
	"testing"

	"holdfast"
	"holdfast/internal/keytest"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
)

// TestConformance runs the conformance suite on a card of version 5.7 in a real PC/SC reader.
func TestConformance(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	keytest.Run(t, keytest.Config{
		Name: "virtual PIV card",
		Open: func(t *testing.T) holdfast.Backend {
			backend, err := token.Open(t.Context(), b.config())
			if err != nil {
				t.Fatal(err)
			}
			return backend
		},
		Resident: []holdfast.Algorithm{
			holdfast.ES256, holdfast.ES384, holdfast.EdDSA, holdfast.RS256_2048, holdfast.RS256_3072, holdfast.RS256_4096,
			holdfast.PS256_2048, holdfast.PS256_3072, holdfast.PS256_4096, holdfast.ECDHP256, holdfast.ECDHP384, holdfast.ECDHX25519,
		},
		Needs: []keytest.Interface{
			keytest.Destroyer, keytest.Planner, keytest.Unlocker, keytest.Prober, keytest.Agreer, keytest.Attester,
		},
	})
}
