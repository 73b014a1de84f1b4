package tpm

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// sealed is what a sealed blob says:
//
//	HoldfastSealed ::= SEQUENCE {
//	    header     SEQUENCE {
//	        version    INTEGER (1),
//	        parentName OCTET STRING,       -- Name of the storage root key
//	        public     OCTET STRING,       -- TPM2B_PUBLIC of the sealed AES-256 key
//	        private    OCTET STRING,       -- TPM2B_PRIVATE
//	        pcrs       SEQUENCE OF SEQUENCE { index INTEGER, value OCTET STRING },  -- SHA-256 bank
//	        authValue  BOOLEAN },          -- whether one is needed
//	    nonce      OCTET STRING (SIZE(12)),
//	    ciphertext OCTET STRING,           -- AES-256-GCM; the header is additional data
//	    digest     OCTET STRING (SIZE(32)) }  -- SHA-256 of a domain separator and all before
//
// GCM guards against edits by anyone who does not hold the key. The digest is for telling an edited blob from a PCR that
// changed, before the TPM is asked.
type sealed struct {
	object
	pcrs      []pcrValue
	authValue bool

	header     []byte
	nonce      []byte
	ciphertext []byte
}

type pcrValue struct {
	Index int
	Value []byte
}

type sealedHeader struct {
	Version    int
	ParentName []byte
	Public     []byte
	Private    []byte
	PCRs       []pcrValue
	AuthValue  bool
}

type sealedBlob struct {
	Header     asn1.RawValue
	Nonce      []byte
	Ciphertext []byte
	Digest     []byte
}

const (
	sealedVersion = 1
	sealedDomain  = "holdfast tpm sealed blob\x00"
	maxSealed     = MaxSecret + 16384
)

func (b sealedBlob) digest() []byte {
	h := sha256.New()
	h.Write([]byte(sealedDomain))
	h.Write(b.Header.FullBytes)
	h.Write(b.Nonce)
	h.Write(b.Ciphertext)
	return h.Sum(nil)
}

// encode encrypts secret and returns the blob.
func (s *sealed) encode(sealKey, secret []byte) ([]byte, error) {
	header, err := asn1.Marshal(sealedHeader{
		Version: sealedVersion, ParentName: s.parentName, Public: tpm2.Marshal(s.public), Private: tpm2.Marshal(s.private),
		PCRs: s.pcrs, AuthValue: s.authValue,
	})
	if err != nil {
		return nil, err
	}
	aead, err := gcm(sealKey)
	if err != nil {
		return nil, err
	}
	blob := sealedBlob{Header: asn1.RawValue{FullBytes: header}, Nonce: make([]byte, aead.NonceSize())}
	if _, err := rand.Read(blob.Nonce); err != nil {
		return nil, err
	}
	blob.Ciphertext = aead.Seal(nil, blob.Nonce, secret, header)
	blob.Digest = blob.digest()
	return asn1.Marshal(blob)
}

// parseSealed reads a sealed blob. It returns ErrIntegrity for one that is not as encode made it.
func parseSealed(data []byte) (*sealed, error) {
	if len(data) > maxSealed {
		return nil, sealedError("it has %d bytes", len(data))
	}
	var blob sealedBlob
	rest, err := asn1.Unmarshal(data, &blob)
	if err != nil || len(rest) > 0 {
		return nil, sealedError("it is not in DER")
	}
	if !bytes.Equal(blob.digest(), blob.Digest) {
		return nil, sealedError("it was edited")
	}
	var header sealedHeader
	rest, err = asn1.Unmarshal(blob.Header.FullBytes, &header)
	if err != nil || len(rest) > 0 {
		return nil, sealedError("its header is not in DER")
	}
	if header.Version != sealedVersion {
		return nil, sealedError("it is of version %d, and %d is known", header.Version, sealedVersion)
	}
	if canonical, err := asn1.Marshal(blob); err != nil || !bytes.Equal(canonical, data) {
		return nil, sealedError("it is not in DER")
	}
	s := &sealed{
		pcrs: header.PCRs, authValue: header.AuthValue,
		header: blob.Header.FullBytes, nonce: blob.Nonce, ciphertext: blob.Ciphertext,
	}
	if s.object, err = sealedObject(header); err != nil {
		return nil, err
	}
	for i, pcr := range s.pcrs {
		if pcr.Index < 0 || pcr.Index >= pcrCount || len(pcr.Value) != sha256.Size || i > 0 && s.pcrs[i-1].Index >= pcr.Index {
			return nil, sealedError("its PCRs are not in order")
		}
	}
	return s, nil
}

func sealedObject(header sealedHeader) (object, error) {
	public, err := unwrap2B(header.Public)
	if err != nil {
		return object{}, err
	}
	private, err := unwrap2B(header.Private)
	if err != nil {
		return object{}, err
	}
	area, err := attestation.ParsePublic(public)
	if err != nil || area.Type != tpm2.TPMAlgKeyedHash {
		return object{}, sealedError("its public area is not that of sealed data")
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return object{}, sealedError("its public area: %w", err)
	}
	return object{header.ParentName, tpm2.New2B(*area), tpm2.TPM2BPrivate{Buffer: private}, *name}, nil
}

// open decrypts the secret.
func (s *sealed) open(sealKey []byte) ([]byte, error) {
	aead, err := gcm(sealKey)
	if err != nil {
		return nil, sealedError("the TPM unsealed no AES-256 key")
	}
	if len(s.nonce) != aead.NonceSize() {
		return nil, sealedError("its nonce has %d bytes", len(s.nonce))
	}
	secret, err := aead.Open(nil, s.nonce, s.ciphertext, s.header)
	if err != nil {
		return nil, sealedError("it was edited")
	}
	return secret, nil
}

func sealedError(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "", "the sealed blob cannot be used: "+format, args...)
}

// conditional reports whether there is any condition to unsealing, so that a policy is needed.
func (s *sealed) conditional() bool { return s.authValue || len(s.pcrs) > 0 }

// policyCommand is a TPM2_Policy command, for the TPM and for computing the digest without one.
type policyCommand struct {
	execute func(c *conn) error
	update  func(*tpm2.PolicyCalculator) error
}

// policyCommands returns the commands that make up the policy, in the given policy session.
func (s *sealed) policyCommands(session tpm2.TPMHandle) []policyCommand {
	var commands []policyCommand
	if len(s.pcrs) > 0 {
		numbers := make([]int, len(s.pcrs))
		h := sha256.New()
		for i, pcr := range s.pcrs {
			numbers[i] = pcr.Index
			h.Write(pcr.Value)
		}
		pcr := tpm2.PolicyPCR{
			PolicySession: session,
			PcrDigest:     tpm2.TPM2BDigest{Buffer: h.Sum(nil)},
			Pcrs:          selectPCRs(numbers...),
		}
		commands = append(commands, policyCommand{func(c *conn) error {
			_, err := pcr.Execute(c)
			return err
		}, pcr.Update})
	}
	if s.authValue {
		auth := tpm2.PolicyAuthValue{PolicySession: session}
		commands = append(commands, policyCommand{func(c *conn) error {
			_, err := auth.Execute(c)
			return err
		}, auth.Update})
	}
	return commands
}

// policy returns the authPolicy, nil when there is no condition.
func (s *sealed) policy() ([]byte, error) {
	if !s.conditional() {
		return nil, nil
	}
	calculator, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	for _, command := range s.policyCommands(0) {
		if err := command.update(calculator); err != nil {
			return nil, err
		}
	}
	return calculator.Hash().Digest, nil
}
