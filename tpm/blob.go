package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// keyBlob is a wrapped key. Its encoding is two DER values and a digest:
//
//	TPMKey, of type id-loadablekey       ASN.1 Specification for TPM 2.0 Key Files, draft-bottomley-tpm2-keys-00
//	HoldfastTPMKey ::= SEQUENCE {
//	    version      INTEGER (1),
//	    parentName   OCTET STRING,       -- Name of the storage root key
//	    creationData OCTET STRING,       -- TPMS_CREATION_DATA
//	    ticket       OCTET STRING }      -- TPMT_TK_CREATION
//	SHA-256 of a domain separator and the two, 32 bytes
//
// Other programs read the first value and stop. The TPM itself checks that the private half and the public area are as it
// made them; the digest makes accidents elsewhere show as well.
type keyBlob struct {
	encoded []byte
	object
	creationData []byte
	ticket       []byte
}

// tssKey is TPMKey without the fields that a key without a policy does not need and older programs do not know.
type tssKey struct {
	Type      asn1.ObjectIdentifier
	EmptyAuth bool `asn1:"explicit,optional,tag:0"`
	Parent    int64
	Public    []byte // TPM2B_PUBLIC
	Private   []byte // TPM2B_PRIVATE
}

type blobTrailer struct {
	Version      int
	ParentName   []byte
	CreationData []byte
	Ticket       []byte
}

const (
	blobVersion = 1
	blobDomain  = "holdfast tpm key blob\x00"
	maxBlob     = 16384 // several times the longest key

	// tssPEMType is the type of TPMKey in PEM.
	tssPEMType = "TSS2 PRIVATE KEY"
)

// oidLoadableKey is id-loadablekey of the TCG's arc.
var oidLoadableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// newBlob encodes what TPM2_Create returned for a key under parent.
func newBlob(parent storageKey, answer *tpm2.CreateResponse) (*keyBlob, error) {
	public, err := answer.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, err
	}
	k := &keyBlob{
		object:       object{parent.Name.Buffer, answer.OutPublic, answer.OutPrivate, *name},
		creationData: answer.CreationData.Bytes(),
		ticket:       tpm2.Marshal(answer.CreationTicket),
	}
	tss := tssKey{
		Type:      oidLoadableKey,
		EmptyAuth: true,
		Parent:    int64(tpm2.TPMRHOwner), // "make the SRK", where it is not persistent
		Public:    tpm2.Marshal(answer.OutPublic),
		Private:   tpm2.Marshal(answer.OutPrivate),
	}
	if parent.persistent {
		tss.Parent = int64(parent.Handle)
	}
	first, err := asn1.Marshal(tss)
	if err != nil {
		return nil, err
	}
	second, err := asn1.Marshal(blobTrailer{blobVersion, k.parentName, k.creationData, k.ticket})
	if err != nil {
		return nil, err
	}
	k.encoded = append(append(first, second...), blobDigest(first, second)...)
	return k, nil
}

func blobDigest(parts ...[]byte) []byte {
	h := sha256.New()
	h.Write([]byte(blobDomain))
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}

// parseBlob reads a blob. It returns ErrIntegrity for one that is not as newBlob made it.
func parseBlob(data []byte) (*keyBlob, error) {
	if len(data) < sha256.Size || len(data) > maxBlob {
		return nil, blobError("it has %d bytes", len(data))
	}
	body, digest := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if !bytes.Equal(blobDigest(body), digest) {
		return nil, blobError("it was edited, truncated, or is no key of a TPM")
	}
	var tss tssKey
	var trailer blobTrailer
	rest, err := asn1.Unmarshal(body, &tss)
	if err == nil {
		rest, err = asn1.Unmarshal(rest, &trailer)
	}
	if err != nil || len(rest) > 0 {
		return nil, blobError("it is not in DER: %w", errors.Join(err))
	}
	if !tss.Type.Equal(oidLoadableKey) || !tss.EmptyAuth || trailer.Version != blobVersion {
		return nil, blobError("it is of a version or kind that Holdfast does not know")
	}
	public, err := unwrap2B(tss.Public)
	if err != nil {
		return nil, err
	}
	private, err := unwrap2B(tss.Private)
	if err != nil {
		return nil, err
	}
	area, err := attestation.ParsePublic(public)
	if err != nil {
		return nil, blobError("its public area: %w", err)
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, blobError("its public area: %w", err)
	}
	return &keyBlob{
		encoded:      bytes.Clone(data),
		object:       object{trailer.ParentName, tpm2.New2B(*area), tpm2.TPM2BPrivate{Buffer: private}, *name},
		creationData: trailer.CreationData,
		ticket:       trailer.Ticket,
	}, nil
}

// unwrap2B returns the contents of a TPM2B, which has to fill data.
func unwrap2B(data []byte) ([]byte, error) {
	if len(data) < 2 || int(binary.BigEndian.Uint16(data)) != len(data)-2 {
		return nil, blobError("a structure in it has the wrong size")
	}
	return data[2:], nil
}

func blobError(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "", "the blob of the wrapped key cannot be used: "+format, args...)
}

// PEM returns the key in a blob that [holdfast.WrappedKey.Blob] returned as a TSS2 PRIVATE KEY in PEM, which tpm2-tools
// (tpm2_load -r) and OpenSSL's TPM 2.0 providers read. Such a program needs the same TPM, and uses the same SRK. It
// returns ErrIntegrity for what is no such blob.
func PEM(blob []byte) ([]byte, error) {
	if _, err := parseBlob(blob); err != nil {
		return nil, translate("export", "", err)
	}
	var first asn1.RawValue
	if _, err := asn1.Unmarshal(blob, &first); err != nil {
		return nil, translate("export", "", blobError("%w", err))
	}
	return pem.EncodeToMemory(&pem.Block{Type: tssPEMType, Bytes: first.FullBytes}), nil
}
