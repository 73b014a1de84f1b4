package tpm_test

import (
	"testing"

	"holdfast"
	"holdfast/internal/keytest"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm"
)

// all is what swtpm has of Holdfast's algorithms.
var all = []holdfast.Algorithm{
	holdfast.ES256, holdfast.ES384, holdfast.ES512, holdfast.RS256_2048, holdfast.RS256_3072, holdfast.PS256_2048,
	holdfast.PS256_3072, holdfast.ECDHP256, holdfast.ECDHP384,
}

func open(t testing.TB, device *softhsmtest.TPM) *tpm.Backend {
	t.Helper()
	b, err := tpm.Open(t.Context(), tpm.Config{Device: "unix:" + device.SocketPath})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestConformance(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	keytest.Run(t, keytest.Config{
		Name:     "swtpm",
		Open:     func(t *testing.T) holdfast.Backend { return open(t, device) },
		Resident: all,
		Wrapped:  all,
		Needs: []keytest.Interface{
			keytest.Destroyer, keytest.Planner, keytest.Loader, keytest.Sealer, keytest.Prober, keytest.Agreer, keytest.Attester,
		},
	})
}
