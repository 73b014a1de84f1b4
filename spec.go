package holdfast

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// KeySpec says what key to generate. Label and Algorithm are required.
type KeySpec struct {
	// Label is what people call the key: 1 to 64 bytes of printable text without '/' or control characters.
	Label string

	// Algorithm is the key's one algorithm.
	Algorithm Algorithm

	// Residence says where the private half is kept. ResidenceDefault leaves it to the backend.
	Residence Residence

	// Place names where in the device a resident key goes, in the device's own words (PIV slot "9c", TPM persistent
	// handle "0x81000100"). Empty lets the backend choose a free one. Places are never overwritten.
	Place string

	// PIN says when the device asks for a PIN before it uses the key.
	PIN PINPolicy

	// Touch says when the device asks for a person's touch before it uses the key.
	Touch TouchPolicy

	// ID identifies the key on devices that have room for an identifier (CKA_ID): 16 bytes. Nil lets the backend choose
	// at random.
	ID []byte
}

// MaxLabel is the longest label, in bytes.
const MaxLabel = 64

// Check returns ErrInvalid, with the field to change, for a spec that no device could fulfil.
func (s KeySpec) Check() error {
	if err := CheckLabel(s.Label); err != nil {
		return err
	}
	if !s.Algorithm.Valid() {
		_, err := ParseAlgorithm(string(s.Algorithm))
		return err
	}
	if s.Residence > Wrapped {
		return Errorf(ErrInvalid, "", "unknown residence %d", s.Residence)
	}
	if s.PIN > PINAlways || s.Touch > TouchCached {
		return Errorf(ErrInvalid, "", "unknown PIN or touch policy")
	}
	if s.Residence == Wrapped && s.Place != "" {
		return Errorf(ErrInvalid, "", "a wrapped key has no place in the device; leave out %q", s.Place)
	}
	if s.ID != nil && len(s.ID) != 16 {
		return Errorf(ErrInvalid, "", "a key's identifier has 16 bytes, not %d", len(s.ID))
	}
	return nil
}

// CheckLabel returns ErrInvalid when s cannot be a key's label.
func CheckLabel(s string) error {
	if s == "" || len(s) > MaxLabel || !utf8.ValidString(s) || strings.TrimSpace(s) != s ||
		strings.ContainsFunc(s, func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }) {
		return Errorf(ErrInvalid, "",
			"a key's name has 1 to %d bytes of printable text without '/' or outer spaces, not %q", MaxLabel, s)
	}
	return nil
}

// Residence says where a key's private half is kept.
type Residence uint8

// The residences.
const (
	ResidenceDefault Residence = iota // the one Capabilities.DefaultResidence names
	Resident                          // an object in the device
	Wrapped                           // outside the device, encrypted under a key that never leaves it
)

// String returns default, resident or wrapped.
func (r Residence) String() string {
	switch r {
	case Resident:
		return "resident"
	case Wrapped:
		return "wrapped"
	default:
		return "default"
	}
}

// PINPolicy says when a device asks for its PIN before it uses a key: the PIN policy of a PIV card,
// CKA_ALWAYS_AUTHENTICATE of PKCS#11.
type PINPolicy uint8

// The PIN policies.
const (
	PINDefault PINPolicy = iota // the backend's own: once per session
	PINNever                    // never
	PINOnce                     // once per session
	PINAlways                   // before every use
)

// String returns default, never, once or always.
func (p PINPolicy) String() string { return [...]string{"default", "never", "once", "always"}[p&3] }

// TouchPolicy says when a device asks for a person's touch before it uses a key.
type TouchPolicy uint8

// The touch policies.
const (
	TouchDefault TouchPolicy = iota // the backend's own: never
	TouchNever                      // never
	TouchAlways                     // before every use
	TouchCached                     // unless touched within the last 15 seconds
)

// String returns default, never, always or cached.
func (p TouchPolicy) String() string { return [...]string{"default", "never", "always", "cached"}[p&3] }
