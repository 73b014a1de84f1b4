//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"os"
	"testing"
	"time"

	"holdfast"
	"holdfast/internal/keytest"
	softhsmtest "holdfast/softhsm-test"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		os.Exit(runChild(name))
	}
	os.Exit(m.Run())
}

// pinOf returns a PIN source.
func pinOf(pin string) func(context.Context) (holdfast.Secret, error) {
	return func(context.Context) (holdfast.Secret, error) { return holdfast.NewSecret([]byte(pin)), nil }
}

// configOf returns the configuration for a SoftHSM2 token.
func configOf(token *softhsmtest.Token) Config {
	return Config{
		Module: token.Module, TokenLabel: token.Label, Serial: token.Serial, PIN: pinOf(token.PIN),
		Environment: token.Environment(), CallTimeout: time.Minute,
	}
}

// openConfig opens a backend for the rest of the test.
func openConfig(t testing.TB, cfg Config) *Backend {
	t.Helper()
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// softHSM opens a new SoftHSM2 token.
func softHSM(t testing.TB) (*Backend, *softhsmtest.Token) {
	t.Helper()
	token := softhsmtest.TokenFor(t, "holdfast test")
	return openConfig(t, configOf(token)), token
}

// residentAlgorithms are those of SoftHSM2 2.6.1: all of them.
var residentAlgorithms = holdfast.Algorithms()

// wrappedAlgorithms are those of SoftHSM2 2.6.1, which wraps no Edwards keys.
var wrappedAlgorithms = []holdfast.Algorithm{
	holdfast.ES256, holdfast.ES384, holdfast.ES512, holdfast.ES256K,
	holdfast.RS256_2048, holdfast.RS256_3072, holdfast.RS256_4096,
	holdfast.PS256_2048, holdfast.PS256_3072, holdfast.PS256_4096,
	holdfast.ECDHP256, holdfast.ECDHP384, holdfast.A256GCM,
}

func TestConformance(t *testing.T) {
	token := softhsmtest.TokenFor(t, "conformance")
	keytest.Run(t, keytest.Config{
		Name: "softhsm2",
		Open: func(t *testing.T) holdfast.Backend {
			b, err := Open(t.Context(), configOf(token))
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Resident: residentAlgorithms,
		Wrapped:  wrappedAlgorithms,
		Needs: []keytest.Interface{keytest.Destroyer, keytest.Planner, keytest.Loader, keytest.Unlocker, keytest.Prober,
			keytest.Agreer, keytest.Encrypter, keytest.Attester},
	})
}
