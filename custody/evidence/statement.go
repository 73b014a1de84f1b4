package evidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
	"unicode"

	"holdfast"
	"holdfast/internal/pubkey"

	"github.com/gowebpki/jcs"
)

// Format is the value of Statement.Format that this package writes and reads.
const Format = "holdfast-evidence-1"

// MaxNonce is the longest nonce, in bytes.
const MaxNonce = 64

// Statement is what a bundle claims.
type Statement struct {
	Format   string `json:"format"`
	Holdfast string `json:"holdfast"` // the version that made it
	Made     string `json:"made"`     // when, RFC 3339 in UTC
	Nonce    string `json:"nonce"`    // what the verifier chose, hexadecimal; empty when nobody did
	Key      Key    `json:"key"`
	Device   Device `json:"device"`
}

// Key is the key that a statement is about.
type Key struct {
	ID        string `json:"id"` // 32 hexadecimal digits
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Purpose   string `json:"purpose"`
	Residence string `json:"residence"` // "resident" or "wrapped"
	Ref       string `json:"ref"`
	Public    string `json:"public"`  // base64 of the SubjectPublicKeyInfo; empty for a secret key
	Created   string `json:"created"` // RFC 3339 in UTC; when it was adopted, for a key that was
	Adopted   bool   `json:"adopted"`
}

// Device is the device that the key is in, as it calls itself.
type Device struct {
	Kind         string `json:"kind"` // "pkcs11", "tpm2" or "piv"; says how the device's files are to be read
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
	Firmware     string `json:"firmware"`
	Label        string `json:"label"`
}

// The files of every bundle.
const (
	FileStatement = "statement.json"
	FileSums      = "SHA256SUMS"
)

// Challenge returns what the device binds its evidence to.
func Challenge(statement []byte) []byte {
	sum := sha256.Sum256(statement)
	return sum[:]
}

// encode returns the statement in the form of RFC 8785.
func (s Statement) encode() ([]byte, error) {
	text, err := json.Marshal(s)
	if err == nil {
		text, err = jcs.Transform(text)
	}
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInternal, "attest", "encode the statement: %w", err)
	}
	return text, nil
}

// claim is a statement that was read, with what its texts mean.
type claim struct {
	Statement
	text      []byte
	algorithm holdfast.Algorithm
	public    crypto.PublicKey // nil for a secret key
	spki      []byte
	nonce     []byte
}

// parseStatement reads a statement strictly: known members only, each in its one form.
func parseStatement(text []byte) (*claim, error) {
	c := &claim{text: text}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c.Statement); err != nil {
		return nil, broken(FileStatement, "it is no statement: %w", err)
	}
	if again, err := c.encode(); err != nil || !bytes.Equal(again, text) {
		return nil, broken(FileStatement, "it is not in the canonical form of RFC 8785")
	}
	if c.Format != Format {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "verify evidence",
			"%s: the format is %q, and this version reads %q", FileStatement, c.Format, Format)
	}
	var err error
	if c.algorithm, err = holdfast.ParseAlgorithm(c.Key.Algorithm); err != nil ||
		string(c.algorithm) != c.Key.Algorithm {
		return nil, broken(FileStatement, "unknown algorithm %q", c.Key.Algorithm)
	}
	if c.Key.Residence != holdfast.Resident.String() && c.Key.Residence != holdfast.Wrapped.String() {
		return nil, broken(FileStatement, "unknown residence %q", c.Key.Residence)
	}
	if id, err := hex.DecodeString(c.Key.ID); err != nil || len(id) != 16 {
		return nil, broken(FileStatement, "the key's identifier is not 32 hexadecimal digits")
	}
	if c.nonce, err = hex.DecodeString(c.Nonce); err != nil || len(c.nonce) > MaxNonce {
		return nil, broken(FileStatement, "the nonce is not at most %d bytes in hexadecimal", MaxNonce)
	}
	for _, t := range []string{c.Made, c.Key.Created} {
		if at, err := time.Parse(time.RFC3339, t); err != nil || at.UTC().Format(time.RFC3339) != t {
			return nil, broken(FileStatement, "%q is no time in UTC", t)
		}
	}
	if err := c.checkTexts(); err != nil {
		return nil, err
	}
	return c, c.parsePublic()
}

// checkTexts checks that what a person reads in a report can say nothing but what it is: a name with line ends or escape
// sequences in it could write lines of its own.
func (c *claim) checkTexts() error {
	if err := holdfast.CheckLabel(c.Key.Name); err != nil {
		return broken(FileStatement, "%w", err)
	}
	for _, text := range []string{c.Key.Purpose, c.Key.Ref, c.Device.Kind, c.Device.Serial} {
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return broken(FileStatement, "%q is not printable text", text)
		}
	}
	return nil
}

func (c *claim) parsePublic() error {
	var err error
	if c.spki, err = base64.StdEncoding.DecodeString(c.Key.Public); err != nil ||
		base64.StdEncoding.EncodeToString(c.spki) != c.Key.Public {
		return broken(FileStatement, "the public key is not in base64")
	}
	if c.algorithm.Use() == holdfast.UseEncrypt {
		if len(c.spki) != 0 {
			return broken(FileStatement, "a secret key has no public half")
		}
		return nil
	}
	if c.public, err = pubkey.ParseSPKIFor(c.algorithm, c.spki); err != nil {
		return broken(FileStatement, "public key: %w", err)
	}
	return nil
}

// broken returns the error of a file that does not hold.
func broken(file, format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "verify evidence", file+": "+format, args...)
}
