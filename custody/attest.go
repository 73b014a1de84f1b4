package custody

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"time"

	"holdfast"
	"holdfast/custody/evidence"
)

// Attest returns the files of an evidence bundle, by name, which prove to a stranger that the key called name was made
// inside its device and cannot leave it; [evidence.Verify] checks them without a daemon. nonce, up to
// [evidence.MaxNonce] bytes, is what the stranger chose, if anything: it shows that the evidence is not an old one. It
// returns ErrUnsupported when the device can prove nothing.
func (s *Service) Attest(ctx context.Context, name string, nonce []byte) (map[string][]byte, error) {
	if len(nonce) > evidence.MaxNonce {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "a nonce has at most %d bytes, not %d", evidence.MaxNonce,
			len(nonce))
	}
	var files map[string][]byte
	err := s.use(ctx, name, holdfast.UseNone, func(e *entry, k holdfast.Key) error {
		attester, ok := holdfast.As[holdfast.Attester](k)
		if !ok {
			return errMissing(e, "proof of where keys were made")
		}
		device, err := e.backend.get(ctx)
		if err != nil {
			return err
		}
		attest := func(challenge []byte) (*holdfast.Evidence, error) { return attester.Attest(ctx, challenge) }
		files, err = evidence.Build(s.statement(e, device.Capabilities(), nonce), attest)
		return err
	})
	return files, err
}

// statement returns what evidence about a key claims.
func (s *Service) statement(e *entry, c holdfast.Capabilities, nonce []byte) evidence.Statement {
	return evidence.Statement{
		Holdfast: s.cfg.Version,
		Made:     s.cfg.Now().UTC().Format(time.RFC3339),
		Nonce:    hex.EncodeToString(nonce),
		Key: evidence.Key{
			ID: e.key.ID.String(), Name: e.key.Name, Algorithm: string(e.key.Algorithm), Purpose: string(e.key.Purpose),
			Residence: e.key.Residence.String(), Ref: string(e.key.Ref), Public: base64.StdEncoding.EncodeToString(e.public),
			Created: e.key.Created.Format(time.RFC3339), Adopted: e.key.Adopted,
		},
		Device: evidence.Device{
			Kind: c.Kind, Manufacturer: c.Device.Manufacturer, Model: c.Device.Model, Serial: c.Device.Serial,
			Firmware: c.Device.Firmware, Label: c.Device.Label,
		},
	}
}
