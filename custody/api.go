package custody

import (
	"context"
	"crypto/ecdh"

	"holdfast"
)

type Service struct{}

func New(ctx context.Context, cfg Config) (*Service, error) { return nil, notYet }
func (s *Service) Close() error                              { return notYet }

func (s *Service) CreateKey(ctx context.Context, r CreateKeyRequest) (Key, error) { return Key{}, notYet }
func (s *Service) AdoptKey(ctx context.Context, r AdoptKeyRequest) (Key, error)   { return Key{}, notYet }
func (s *Service) DestroyKey(ctx context.Context, name string) error              { return notYet }

func (s *Service) Key(ctx context.Context, name string) (Key, error) { return Key{}, notYet }
func (s *Service) KeyByRef(ctx context.Context, backend string, ref holdfast.Ref) (Key, error) {
	return Key{}, notYet
}
func (s *Service) Keys(ctx context.Context, o ListOptions) (keys []Key, next string, err error) {
	return nil, "", notYet
}

func (s *Service) Sign(ctx context.Context, name string, digest []byte) ([]byte, error) {
	return nil, notYet
}
func (s *Service) SignBatch(ctx context.Context, name string, digests [][]byte) ([]SignResult, error) {
	return nil, notYet
}
func (s *Service) Agree(ctx context.Context, name string, peer *ecdh.PublicKey) ([]byte, error) {
	return nil, notYet
}
func (s *Service) Encrypt(ctx context.Context, name string, plaintext, additionalData []byte) ([]byte, error) {
	return nil, notYet
}
func (s *Service) Decrypt(ctx context.Context, name string, ciphertext, additionalData []byte) ([]byte, error) {
	return nil, notYet
}
func (s *Service) Seal(ctx context.Context, backend string, secret holdfast.Secret, o *holdfast.SealOptions) ([]byte, error) {
	return nil, notYet
}
func (s *Service) Unseal(ctx context.Context, backend string, blob []byte, o *holdfast.UnsealOptions) (holdfast.Secret, error) {
	return holdfast.Secret{}, notYet
}

// Attest: files of an evidence bundle by name; nonce may be nil.
func (s *Service) Attest(ctx context.Context, name string, nonce []byte) (map[string][]byte, error) {
	return nil, notYet
}

func (s *Service) Backends(ctx context.Context) []BackendStatus { return nil }
func (s *Service) ProbeBackend(ctx context.Context, name string) (BackendStatus, error) {
	return BackendStatus{}, notYet
}
func (s *Service) InspectBackend(ctx context.Context, name string) (Inspection, error) {
	return Inspection{}, notYet
}

// UnlockBackend: the zero Secret asks the configured source again.
func (s *Service) UnlockBackend(ctx context.Context, name string, pin holdfast.Secret) error {
	return notYet
}

var notYet = holdfast.Errorf(holdfast.ErrUnsupported, "", "this part of custody is not built yet")
