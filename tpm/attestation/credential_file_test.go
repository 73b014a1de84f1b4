package attestation_test

import (
	"bytes"
	"errors"
	"testing"

	"holdfast"
	"holdfast/tpm/attestation"
)

func FuzzParseCredential(f *testing.F) {
	f.Add(attestation.Credential{IDObject: []byte("id"), EncryptedSeed: []byte("seed")}.Marshal())
	f.Add([]byte{0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1, 0, 9, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := attestation.ParseCredential(data)
		if err != nil {
			if !errors.Is(err, holdfast.ErrInvalid) {
				t.Errorf("code of %v", err)
			}
			return
		}
		if !bytes.Equal(c.Marshal(), data) {
			t.Error("it has two encodings")
		}
	})
}
