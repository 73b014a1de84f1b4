// Package dataintegrity makes and verifies Data Integrity proofs (Verifiable Credential Data Integrity 1.0) with the
// cryptosuites that sign canonical JSON: eddsa-jcs-2022 for Ed25519, and ecdsa-jcs-2019 for P-256 and P-384.
//
// The suites that canonicalize RDF are not here: they need JSON-LD contexts, which are code from elsewhere.
package dataintegrity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/internal/pubkey"
	"holdfast/internal/strictjson"

	"github.com/mr-tron/base58"
)

// The cryptosuites.
const (
	EdDSA = "eddsa-jcs-2022" // Data Integrity EdDSA Cryptosuites 1.0, section 3.3
	ECDSA = "ecdsa-jcs-2019" // Data Integrity ECDSA Cryptosuites 1.0, section 3.3
)

// Type is the type of all proofs here.
const Type = "DataIntegrityProof"

// SignFunc signs message, hashing it where the algorithm does that first, and returns 64 bytes for Ed25519 and r||s for
// ECDSA. For eddsa-jcs-2022 the message has 64 bytes, for ecdsa-jcs-2019 it has 64 (P-256) or 96 (P-384).
type SignFunc func(ctx context.Context, message []byte) (signature []byte, err error)

// SignWith returns a SignFunc that signs with a key of a device.
func SignWith(key holdfast.Key) SignFunc {
	return func(ctx context.Context, message []byte) ([]byte, error) {
		signature, err := key.Sign(ctx, key.Algorithm().Digest(message), nil)
		if err != nil {
			return nil, err
		}
		return pubkey.RawSignature(key.Algorithm(), signature)
	}
}

// Proof is a Data Integrity proof without the members nobody here uses. Times are in UTC, RFC 3339.
type Proof struct {
	Context            json.RawMessage `json:"@context,omitempty"`
	Type               string          `json:"type"`
	Cryptosuite        string          `json:"cryptosuite"`
	Created            string          `json:"created,omitempty"`
	Expires            string          `json:"expires,omitempty"`
	VerificationMethod string          `json:"verificationMethod"`
	ProofPurpose       string          `json:"proofPurpose"`
	Challenge          string          `json:"challenge,omitempty"`
	Domain             string          `json:"domain,omitempty"`
	ProofValue         string          `json:"proofValue,omitempty"`
}

// Options says what proof to make.
type Options struct {
	// VerificationMethod is the DID URL of the key that signs. Required.
	VerificationMethod string

	// Purpose is the verification relationship the proof is for. Empty means assertionMethod.
	Purpose did.Relationship

	// Created is the time the proof says it was made at, to the second. Zero leaves it out.
	Created time.Time

	// Expires is the time after which the proof is not valid. Zero means never.
	Expires time.Time

	// Challenge and Domain bind a proof for authentication to the one who asked for it. Empty leaves them out.
	Challenge, Domain string
}

// suite is what differs between the kinds of key.
type suite struct {
	name      string
	hash      func([]byte) []byte
	algorithm holdfast.Algorithm
}

func suiteFor(pub crypto.PublicKey) (suite, error) {
	sha256sum := func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
	sha384sum := func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }
	switch pub.(type) {
	case ed25519.PublicKey:
		return suite{EdDSA, sha256sum, holdfast.EdDSA}, nil
	case *ecdsa.PublicKey:
		if holdfast.ES256.CheckPublic(pub) == nil {
			return suite{ECDSA, sha256sum, holdfast.ES256}, nil
		}
		if holdfast.ES384.CheckPublic(pub) == nil {
			return suite{ECDSA, sha384sum, holdfast.ES384}, nil
		}
	}
	return suite{}, holdfast.Errorf(holdfast.ErrUnsupported, "", "proofs are made by Ed25519, P-256 and P-384 keys")
}

// Create returns a proof over document, a JSON object without a proof, by the key whose public half is pub. sign is
// called once, and what it returns is verified.
func Create(ctx context.Context, document []byte, pub crypto.PublicKey, o Options, sign SignFunc) (*Proof, error) {
	s, err := suiteFor(pub)
	if err != nil {
		return nil, err
	}
	proof, members, err := newProof(document, s.name, o)
	if err != nil {
		return nil, err
	}
	if _, has := members["proof"]; has {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the document already has a proof")
	}
	message, err := s.message(document, proof)
	if err != nil {
		return nil, err
	}
	signature, err := sign(ctx, message)
	if err != nil {
		return nil, err
	}
	if err := s.verify(pub, message, signature); err != nil {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"what the key signed does not verify under its public key: %w", err)
	}
	proof.ProofValue = "z" + base58.Encode(signature)
	return proof, nil
}

func newProof(document []byte, cryptosuite string, o Options) (*Proof, map[string]json.RawMessage, error) {
	if _, err := did.ParseURL(o.VerificationMethod); err != nil {
		return nil, nil, err
	}
	if o.Purpose == "" {
		o.Purpose = did.AssertionMethod
	}
	if err := strictjson.Check(document); err != nil {
		return nil, nil, err
	}
	members, err := strictjson.Object(document)
	if err != nil {
		return nil, nil, err
	}
	return &Proof{
		Context: members["@context"], Type: Type, Cryptosuite: cryptosuite,
		Created: formatTime(o.Created), Expires: formatTime(o.Expires),
		VerificationMethod: o.VerificationMethod, ProofPurpose: string(o.Purpose),
		Challenge: o.Challenge, Domain: o.Domain,
	}, members, nil
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// message returns what is signed: the hash of the canonical proof options, then that of the canonical document.
func (s suite) message(document []byte, proof *Proof) ([]byte, error) {
	options := *proof
	options.ProofValue = ""
	text, err := json.Marshal(options)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "encode proof options: %w", err)
	}
	config, err := did.Canonicalize(text)
	if err != nil {
		return nil, err
	}
	canonical, err := did.Canonicalize(document)
	if err != nil {
		return nil, err
	}
	return append(s.hash(config), s.hash(canonical)...), nil
}

func (s suite) verify(pub crypto.PublicKey, message, signature []byte) error {
	encoded, err := pubkey.DERSignature(s.algorithm, signature)
	if err != nil {
		return err
	}
	return holdfast.Verify(s.algorithm, pub, s.algorithm.Digest(message), encoded)
}

// Attach returns document, a JSON object, with the proof added as its member "proof".
func Attach(document []byte, proof *Proof) ([]byte, error) {
	if err := strictjson.Check(document); err != nil {
		return nil, err
	}
	members, err := strictjson.Object(document)
	if err != nil {
		return nil, err
	}
	if _, has := members["proof"]; has {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the document already has a proof")
	}
	if members["proof"], err = json.Marshal(proof); err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "encode proof: %w", err)
	}
	return json.Marshal(members)
}
