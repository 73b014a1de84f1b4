package tpm

import (
	"context"

	"holdfast"
	"holdfast/tpm/attestation"
)

var _ holdfast.Activator = (*Backend)(nil)

// Activate is [Backend.ActivateCredential] for a credential in the file format of tpm2-tools.
func (b *Backend) Activate(ctx context.Context, credential []byte) (holdfast.Secret, error) {
	parsed, err := attestation.ParseCredential(credential)
	if err != nil {
		return holdfast.Secret{}, err
	}
	return b.ActivateCredential(ctx, parsed)
}
