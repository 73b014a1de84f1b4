package custody

import (
	"context"

	"holdfast"
)

// Activate answers a verifier's question whether a device's attestation key is in the device its maker certified, see
// [holdfast.Activator].
func (s *Service) Activate(ctx context.Context, name string, credential []byte) (holdfast.Secret, error) {
	if err := s.enter(ctx); err != nil {
		return holdfast.Secret{}, err
	}
	defer s.calls.leave()
	b, err := s.backend(name)
	if err != nil {
		return holdfast.Secret{}, err
	}
	d, err := b.get(ctx)
	if err != nil {
		return holdfast.Secret{}, err
	}
	activator, ok := holdfast.As[holdfast.Activator](d.Backend)
	if !ok {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"backend %s is no TPM and activates no credentials", name)
	}
	secret, err := activator.Activate(ctx, credential)
	return secret, b.observe(err)
}
