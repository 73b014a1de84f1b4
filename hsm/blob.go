package hsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"

	"holdfast"
)

// A wrapped key is kept as the DER encoding of
//
//	WrappedKey ::= SEQUENCE {
//	    body      SEQUENCE {
//	        version    INTEGER (1),
//	        algorithm  UTF8String,    -- holdfast.Algorithm
//	        id         OCTET STRING,  -- the key's identifier, 16 bytes
//	        kek        OCTET STRING,  -- CKA_ID of the key-wrapping key, 16 bytes
//	        mechanism  INTEGER,       -- CKM_ of C_WrapKey
//	        public     OCTET STRING,  -- SubjectPublicKeyInfo, empty for secret keys
//	        wrapped    OCTET STRING }, -- what C_WrapKey returned
//	    mac       OCTET STRING,       -- HMAC-SHA256 over body under a key in the token that has the KEK's CKA_ID
//	    checksum  OCTET STRING }      -- first 8 bytes of SHA-256 over body and mac
//
// The MAC binds public key and algorithm to the wrapped bytes: only a session on the token can make one. The checksum
// finds damage before the token is asked.
type blob struct {
	Raw      asn1.RawContent
	Body     blobBody
	MAC      []byte
	Checksum []byte
}

type blobBody struct {
	Raw       asn1.RawContent
	Version   int
	Algorithm string `asn1:"utf8"`
	ID        []byte
	KEK       []byte
	Mechanism int64
	Public    []byte
	Wrapped   []byte
}

const (
	blobVersion  = 1
	checksumSize = 8
	maxBlob      = 16 << 10 // an RSA-4096 key wraps to about 2.4 KiB
)

// encodeBody returns the DER encoding of b, over which the MAC is made.
func encodeBody(b blobBody) ([]byte, error) {
	b.Raw, b.Version = nil, blobVersion
	return asn1.Marshal(b)
}

// encodeBlob joins an encoded body and its MAC to a blob.
func encodeBlob(body, mac []byte) ([]byte, error) {
	return asn1.Marshal(struct {
		Body          asn1.RawValue
		MAC, Checksum []byte
	}{asn1.RawValue{FullBytes: body}, mac, blobChecksum(body, mac)})
}

func blobChecksum(body, mac []byte) []byte {
	h := sha256.New()
	h.Write(body)
	h.Write(mac)
	return h.Sum(nil)[:checksumSize]
}

// parseBlob parses what encodeBlob returned. It returns ErrIntegrity for anything else.
func parseBlob(der []byte) (*blob, error) {
	var b blob
	if len(der) > maxBlob {
		return nil, damaged("it is longer than %d bytes", maxBlob)
	}
	rest, err := asn1.Unmarshal(der, &b)
	if err != nil || len(rest) != 0 {
		return nil, damaged("it is not the DER encoding of one")
	}
	if len(b.MAC) != sha256.Size || !bytes.Equal(b.Checksum, blobChecksum(b.Body.Raw, b.MAC)) {
		return nil, damaged("its checksum is wrong")
	}
	if again, err := encodeBlob(b.Body.Raw, b.MAC); err != nil || !bytes.Equal(again, der) {
		return nil, damaged("it is not in its one canonical form")
	}
	return &b, b.Body.check()
}

func (b *blobBody) check() error {
	switch {
	case b.Version != blobVersion:
		return holdfast.Errorf(holdfast.ErrInvalid, "load",
			"the wrapped key has format version %d; this Holdfast reads version %d", b.Version, blobVersion)
	case !holdfast.Algorithm(b.Algorithm).Valid():
		return holdfast.Errorf(holdfast.ErrInvalid, "load",
			"the wrapped key is of algorithm %q, which this Holdfast does not know", clip(b.Algorithm))
	case len(b.ID) != idSize || len(b.KEK) != idSize || len(b.Wrapped) == 0 || b.Mechanism <= 0:
		return damaged("a field has the wrong size")
	}
	return nil
}

// idSize is the size of the CKA_ID that Holdfast gives its objects.
const idSize = 16

func damaged(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "load", "the wrapped key is damaged: "+format, args...)
}
