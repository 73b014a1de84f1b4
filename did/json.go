package did

import (
	"holdfast"
	"holdfast/internal/strictjson"

	"github.com/gowebpki/jcs"
)

// MaxDocument is the longest JSON text that documents and log entries may have, in bytes.
const MaxDocument = 256 << 10

// Canonicalize returns data in the form of the JSON Canonicalization Scheme (RFC 8785), which signatures and hashes cover.
// It refuses, with ErrInvalid, what two readers could take for different things: duplicate names, lone surrogates,
// invalid UTF-8, integers that a double does not keep apart, and anything nested deeper than 32 levels or longer than
// [MaxDocument].
func Canonicalize(data []byte) ([]byte, error) {
	if len(data) > MaxDocument {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the JSON text has more than %d bytes", MaxDocument)
	}
	if err := strictjson.Check(data); err != nil {
		return nil, err
	}
	canonical, err := jcs.Transform(data)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "canonicalize JSON: %w", err)
	}
	return canonical, nil
}
