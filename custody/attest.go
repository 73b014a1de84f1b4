package custody

import (
	"context"

	"holdfast"
)

// Attest returns the files of an evidence bundle, by name, which prove to a stranger that the key called name was made
// inside its device and cannot leave it; [evidence.Verify] checks them without a daemon. nonce, up to 64 bytes, is what
// the stranger chose, if anything: it shows that the evidence is not an old one. It returns ErrUnsupported when the
// device can prove nothing.
func (s *Service) Attest(ctx context.Context, name string, nonce []byte) (map[string][]byte, error) {
	return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "evidence is not built yet")
}
