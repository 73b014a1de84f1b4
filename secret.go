package holdfast

import (
	"fmt"
	"log/slog"
)

// Secret holds bytes that must not reach a log, an error or a dump of a struct: a PIN, an authValue, a sealed wallet key.
// fmt prints the bytes of a []byte field even when its type has methods, as long as the field is unexported; only a
// func value is opaque to it, so that is where a Secret keeps them. The zero Secret is empty.
type Secret struct {
	bytes func() []byte
}

const redacted = "[secret]"

// NewSecret returns a Secret that owns b; the caller no longer uses b.
func NewSecret(b []byte) Secret {
	return Secret{func() []byte { return b }}
}

// Bytes returns the bytes themselves, not a copy.
func (s Secret) Bytes() []byte {
	if s.bytes == nil {
		return nil
	}
	return s.bytes()
}

// Len returns the number of bytes.
func (s Secret) Len() int { return len(s.Bytes()) }

// Wipe overwrites the bytes with zeros.
func (s Secret) Wipe() { clear(s.Bytes()) }

// String returns a fixed text.
func (s Secret) String() string { return redacted }

// GoString returns a fixed text.
func (s Secret) GoString() string { return redacted }

// Format writes a fixed text for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns a fixed text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a fixed text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
