//go:build cgo && !nopiv

package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// session is an exclusive connection to the card.
type session struct {
	yk     *piv.YubiKey
	reader string
	serial uint32
	pin    secretState // what the card told of its PIN when the session began

	verified  bool // our PIN was accepted in this session
	committed bool // the operation that runs has given a PIN or changed something, so it is not to be run again
}

// connect finds the card and connects to it.
func (b *Backend) connect() (*session, error) {
	names, err := readers()
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.Contains(name, b.cfg.Reader) })
	if len(names) == 0 {
		return nil, holdfast.Errorf(holdfast.ErrUnavailable, "", "no smart card reader called %q is connected", b.cfg.Reader)
	}
	if i := slices.Index(names, b.reader); i > 0 {
		names[0], names[i] = names[i], names[0]
	}
	var found *session
	var problem error
	for _, name := range names {
		s, err := b.connectTo(name)
		switch {
		case err != nil:
			if problem == nil || errors.Is(problem, pcscNoCard) {
				problem = err
			}
		case b.serial != 0:
			return s, nil
		case found != nil:
			_, _ = s.yk.Close(), found.yk.Close()
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
				"there is more than one card (serial %d and %d): say which", found.serial, s.serial)
		default:
			found = s
		}
	}
	if found == nil {
		return nil, problem
	}
	return found, nil
}

// connectTo connects to the card in one reader and checks that it is ours.
func (b *Backend) connectTo(reader string) (*session, error) {
	pin, err := inspect(reader)
	if errors.Is(err, pcscSharing) && b.stuck == reader {
		return nil, errStuck(reader, err)
	}
	if err != nil {
		return nil, err
	}
	yk, err := piv.Open(reader)
	if err != nil {
		return nil, b.openError(reader, err)
	}
	serial, err := yk.Serial()
	if err != nil {
		_ = yk.Close()
		if gone(err) {
			return nil, err
		}
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the card in %s does not tell its serial number, by which its keys are named: %w", reader, err)
	}
	if b.serial != 0 && serial != b.serial {
		_ = yk.Close()
		return nil, holdfast.Errorf(holdfast.ErrUnavailable, "",
			"another card (serial %d) is in the reader; put in the one with serial %d", serial, b.serial)
	}
	b.reader = reader
	return &session{yk: yk, reader: reader, serial: serial, pin: pin}, nil
}

// inspect makes sure that what is in the reader answers as a PIV card, before piv.Open has to do with it, and asks for
// the state of the PIN.
func inspect(reader string) (secretState, error) {
	raw, err := connectRaw(reader)
	if sw := statusOf(err); sw != 0 {
		return secretState{}, holdfast.Errorf(holdfast.ErrUnavailable, "",
			"the card in %s is not a PIV card (%w)", reader, err)
	}
	if err != nil {
		return secretState{}, fmt.Errorf("reader %s: %w", reader, err)
	}
	answer, err := raw.transmit(getMetadata(0x80))
	closeErr := raw.close(false)
	if gone(err) {
		return secretState{}, fmt.Errorf("reader %s: %w", reader, err)
	}
	return parseSecretState(answer), closeErr // an older card does not know the command: nothing is known then
}

// openError translates what piv.Open said. Where the card goes between its answer to inspect and piv-go's SELECT, a few
// milliseconds later, piv.Open returns without letting go of the reader, and nothing but the end of the process does.
func (b *Backend) openError(reader string, err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "selecting piv applet"), strings.Contains(text, "beginning smart card transaction"):
		b.stuck = reader
		return errStuck(reader, err)
	case strings.Contains(text, pcscOutstanding):
		return fmt.Errorf("reader %s: %w", reader, pcscSharing)
	case strings.Contains(text, "getting yubikey version") && !gone(err):
		return holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the card in %s has no version command, which this package needs: %w", reader, err)
	default:
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "reader %s: %w", reader, err)
	}
}

func errStuck(reader string, err error) error {
	return holdfast.Errorf(holdfast.ErrUnavailable, "",
		"the card in %s was taken out while it was being opened, which keeps the reader locked: restart the daemon (%w)",
		reader, err)
}

// pcscOutstanding is how piv-go words SCARD_E_SHARING_VIOLATION.
const pcscOutstanding = "other connections outstanding"

// disconnect releases the card. A card that took our PIN is reset first, as soon as piv-go lets go of it: it would let
// the next program use the keys, because PC/SC leaves it powered.
func (b *Backend) disconnect() {
	s := b.session
	if s == nil {
		return
	}
	b.session = nil
	_ = s.yk.Close() // fails for a card that is gone, and then there is nothing to release
	if s.verified {
		if raw, err := connectRaw(s.reader); err == nil {
			_ = raw.close(true)
		}
	}
}

// retries returns how many PIN tries the card has left, RetriesUnknown while a PIN is verified, because the card answers
// the question with yes then.
func (s *session) retries() (int, error) {
	left, err := s.yk.Retries()
	switch {
	case err == nil:
		return left, nil
	case gone(err):
		return 0, err
	default:
		return holdfast.RetriesUnknown, nil
	}
}

// need says which cards have an algorithm.
type need struct {
	identifier   byte // SP 800-78-4, table 6-2, and the extensions
	algorithm    piv.Algorithm
	major, minor int // the first version
}

// needs is what cards promise by their version. Cards that promise more than they have exist. Before 4.0 cards take no
// PIN and touch policies, without which piv-go makes no keys.
var needs = map[holdfast.Algorithm]need{
	holdfast.ES256:      {0x11, piv.AlgorithmEC256, 4, 0},
	holdfast.ES384:      {0x14, piv.AlgorithmEC384, 4, 0},
	holdfast.EdDSA:      {0xE0, piv.AlgorithmEd25519, 5, 7},
	holdfast.RS256_2048: {0x07, piv.AlgorithmRSA2048, 4, 0},
	holdfast.RS256_3072: {0x05, piv.AlgorithmRSA3072, 5, 7},
	holdfast.RS256_4096: {0x16, piv.AlgorithmRSA4096, 5, 7},
	holdfast.PS256_2048: {0x07, piv.AlgorithmRSA2048, 4, 0},
	holdfast.PS256_3072: {0x05, piv.AlgorithmRSA3072, 5, 7},
	holdfast.PS256_4096: {0x16, piv.AlgorithmRSA4096, 5, 7},
	holdfast.ECDHP256:   {0x11, piv.AlgorithmEC256, 4, 0},
	holdfast.ECDHP384:   {0x14, piv.AlgorithmEC384, 4, 0},
	holdfast.ECDHX25519: {0xE1, piv.AlgorithmX25519, 5, 7},
}

// offers is what a card was found to have when it was opened.
type offers struct {
	places   []string      // slots that exist
	lacks    map[byte]bool // algorithm identifiers that it refuses
	distrust string        // Capabilities.Distrust
}

// probe asks the card, without changing anything, which slots and which algorithms it has.
func (b *Backend) probe(reader string) (offers, error) {
	all := offers{places: allPlaces()}
	if !b.atLeast(5, 3) {
		b.noMetadata = true
		b.noAttest = !b.atLeast(4, 3)
		return all, nil
	}
	raw, err := connectRaw(reader)
	if err != nil {
		return all, err
	}
	defer func() { _ = raw.close(false) }()
	var found offers
	empty := ""
	for _, place := range allPlaces() {
		_, err := raw.transmit(getMetadata(byte(slotOf(place).Key)))
		switch sw := statusOf(err); {
		case gone(err):
			return all, err
		case notOffered(err):
			b.noMetadata = true
			return all, nil
		case sw == swDataNotFound || sw == swObjectNotFound:
			empty = place
			found.places = append(found.places, place)
		case sw != swWrongP1P2:
			found.places = append(found.places, place)
		}
	}
	if empty != "" {
		err = found.probeAlgorithms(raw, byte(slotOf(empty).Key))
	}
	return found, err
}

// probeAlgorithms asks for a key of each newer algorithm in an empty slot, without having shown the management key. A
// card refuses that, and many say at once when it is the algorithm that they do not know (6A80, 6A86). What others
// answer, 6982, leaves it open until Generate.
func (o *offers) probeAlgorithms(raw *rawCard, slot byte) error {
	o.lacks = make(map[byte]bool)
	for _, identifier := range []byte{0xE0, 0xE1, 0x05, 0x16} {
		_, err := raw.transmit([]byte{0x00, 0x47, 0x00, slot, 0x05, 0xAC, 0x03, 0x80, 0x01, identifier, 0x00})
		if gone(err) {
			return err
		}
		if err == nil {
			o.distrust = "the card makes keys without being shown its management key, so anybody can replace them"
			return nil
		}
		sw := statusOf(err)
		o.lacks[identifier] = sw == swWrongData || sw == swWrongP1P2 || sw == swNotSupported
	}
	return nil
}
