//go:build cgo && !nopiv

package token

import "context"

// RawAttestation reads the attestation of a slot as is done where piv-go cannot return it.
func RawAttestation(ctx context.Context, b *Backend, place string) (slot, ca []byte, err error) {
	err = b.do(ctx, "attest", "", func(s *session) error {
		slot, ca, err = b.rawAttestation(s, slotOf(place))
		return err
	})
	return slot, ca, err
}
