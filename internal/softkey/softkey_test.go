package softkey_test

import (
	"path/filepath"
	"testing"

	"holdfast"
	"holdfast/internal/keytest"
	"holdfast/internal/softkey"
)

func TestConformance(t *testing.T) {
	file := filepath.Join(t.TempDir(), "device.json")
	keytest.Run(t, keytest.Config{
		Name: "softkey",
		Open: func(t *testing.T) holdfast.Backend {
			b, err := softkey.Open(t.Context(), softkey.Config{File: file})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Resident: holdfast.Algorithms(),
		Wrapped:  holdfast.Algorithms(),
		Needs: []keytest.Interface{
			keytest.Destroyer, keytest.Planner, keytest.Loader, keytest.Sealer, keytest.Unlocker, keytest.Prober, keytest.Attester,
		},
	})
}
