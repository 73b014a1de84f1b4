//go:build cgo && !nopiv

package token

import (
	"context"
	"slices"

	"holdfast"
)

// Health asks the card for its state: tries left, factory secrets still in place, free slots. It tries no PIN. Whether
// the management key is the factory's is tried out where the card does not tell, which these cards do not count.
func (b *Backend) Health(ctx context.Context) (Health, error) {
	h := Health{Serial: b.serial, Firmware: versionText(b.version)}
	err := b.do(ctx, "health", "", func(s *session) error {
		h.Reader = s.reader
		b.disconnect() // a session with a verified PIN would not tell the counter
		if err := h.askRaw(s.reader); err != nil {
			return err
		}
		s, err := b.connect()
		if err != nil {
			return err
		}
		b.session = s
		return b.askSession(s, &h)
	})
	if err != nil {
		return Health{}, err
	}
	h.note()
	return h, nil
}

// askRaw reads the metadata of PIN, PUK and management key.
func (h *Health) askRaw(reader string) error {
	raw, err := connectRaw(reader)
	if err != nil {
		return err
	}
	defer func() { _ = raw.close(false) }()
	var states [3]secretState
	for i, reference := range []byte{0x80, 0x81, 0x9B} {
		answer, err := raw.transmit(getMetadata(reference))
		if gone(err) {
			return err
		}
		states[i] = parseSecretState(answer)
	}
	h.DefaultPIN, h.PINTotal = states[0].isDefault, states[0].total
	h.DefaultPUK, h.PUKTotal, h.PUKRetries = states[1].isDefault, states[1].total, states[1].left
	h.DefaultManagementKey = states[2].isDefault
	return nil
}

// askSession asks for the rest.
func (b *Backend) askSession(s *session, h *Health) error {
	left, err := s.retries()
	if err != nil {
		return err
	}
	h.PINRetries = left
	if h.DefaultManagementKey == Unknown {
		if err := h.tryDefaultKey(s); err != nil {
			return err
		}
	}
	for _, place := range b.caps.Places {
		c, err := b.readSlot(s, place)
		if err != nil {
			return err
		}
		if c.free() {
			h.Free = append(h.Free, place)
		}
	}
	slices.Sort(h.Free)
	_, err = s.yk.AttestationCertificate()
	if gone(err) {
		return err
	}
	h.Attests = err == nil && !b.noAttest && b.atLeast(4, 3)
	form, err := s.yk.FormFactor() // selects another application and PIV again, which forgets the PIN; none is verified
	if gone(err) {
		return err
	}
	if err == nil && form != 0 {
		h.FormFactor = form.String()
	}
	return nil
}

func (h *Health) tryDefaultKey(s *session) error {
	ok, err := tryManagementKey(s, factoryManagementKey())
	if holdfast.CodeOf(err) == holdfast.ErrUnsupported {
		return nil
	}
	if err != nil {
		return err
	}
	h.DefaultManagementKey = No
	if ok {
		h.DefaultManagementKey = Yes
	}
	return nil
}
