package dataintegrity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/internal/strictjson"

	"github.com/mr-tron/base58"
)

// maxProofValue is the longest proofValue: 96 bytes for P-384 in base58btc.
const maxProofValue = 160

// Received is a proof that somebody else made: what it says, and the canonical form of its options, which the signature
// covers with all members, known or not.
type Received struct {
	Proof

	signature []byte
	config    []byte // canonical
}

// Receive reads one proof. It returns ErrInvalid unless it is strict JSON with the required members, and ErrUnsupported
// for other types and cryptosuites.
func Receive(raw []byte) (*Received, error) {
	if err := strictjson.Check(raw); err != nil {
		return nil, err
	}
	members, err := strictjson.Object(raw)
	if err != nil {
		return nil, err
	}
	r := &Received{}
	for name, value := range map[string]*string{
		"type": &r.Type, "cryptosuite": &r.Cryptosuite, "verificationMethod": &r.VerificationMethod,
		"proofPurpose": &r.ProofPurpose, "proofValue": &r.ProofValue,
	} {
		if *value, err = strictjson.String(members[name]); err != nil {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "a proof has a member %q, which is a string", name)
		}
	}
	for name, value := range map[string]*string{
		"created": &r.Created, "expires": &r.Expires, "challenge": &r.Challenge, "domain": &r.Domain,
	} {
		if member, has := members[name]; has {
			if *value, err = strictjson.String(member); err != nil {
				return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the member %q of a proof is a string", name)
			}
		}
	}
	r.Context = members["@context"]
	delete(members, "proofValue")
	return r, r.finish(members)
}

func (r *Received) finish(config map[string]json.RawMessage) error {
	if r.Type != Type {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "proofs of type %.40q are not supported", r.Type)
	}
	if r.Cryptosuite != EdDSA && r.Cryptosuite != ECDSA {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "proofs with cryptosuite %.40q are not supported", r.Cryptosuite)
	}
	for _, text := range []string{r.Created, r.Expires} {
		if text == "" {
			continue
		}
		if _, err := did.ParseTime(text); err != nil {
			return err
		}
	}
	if len(r.ProofValue) < 2 || len(r.ProofValue) > maxProofValue || r.ProofValue[0] != 'z' {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "the proofValue is a signature in base58btc with prefix z")
	}
	var err error
	if r.signature, err = base58.Decode(r.ProofValue[1:]); err != nil {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "decode proofValue: %w", err)
	}
	text, err := json.Marshal(config)
	if err != nil {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "encode proof options: %w", err)
	}
	r.config, err = did.Canonicalize(text)
	return err
}

// ExpiredAt reports whether the proof says that it is no longer valid at t.
func (r *Received) ExpiredAt(t time.Time) bool {
	if r.Expires == "" {
		return false
	}
	expires, err := did.ParseTime(r.Expires)
	return err != nil || !t.Before(expires)
}

// VerifyCanonical verifies the signature over a document that the caller has canonicalized, without its proof, under the
// key pub. It returns ErrIntegrity when the signature is not valid, ErrInvalid when the key does not fit the cryptosuite.
// Purpose, verification method and times are the caller's to check.
func (r *Received) VerifyCanonical(canonical []byte, pub crypto.PublicKey) error {
	if key, ok := pub.(ed25519.PublicKey); ok && r.Cryptosuite == EdDSA && len(key) == ed25519.PublicKeySize {
		return r.verifyEd25519(canonical, key)
	}
	s, err := suiteFor(pub)
	if err != nil {
		return err
	}
	if s.name != r.Cryptosuite {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "the key of the proof does not fit %s", r.Cryptosuite)
	}
	return s.verify(pub, append(s.hash(r.config), s.hash(canonical)...), r.signature)
}

// verifyEd25519 is the short way for logs with thousands of proofs.
func (r *Received) verifyEd25519(canonical []byte, pub ed25519.PublicKey) error {
	var message [2 * sha256.Size]byte
	config, document := sha256.Sum256(r.config), sha256.Sum256(canonical)
	copy(message[:], config[:])
	copy(message[sha256.Size:], document[:])
	if !ed25519.Verify(pub, message[:], r.signature) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the proof does not verify under its key")
	}
	return nil
}

// Verify verifies the one proof of a secured document under the key pub, and returns what the proof says. A document with
// several proofs is refused with ErrUnsupported. Whether pub is the key of the proof's verification method, and may be
// used for its purpose, is the caller's to check (did.Document.Method), as are its times, challenge and domain.
func Verify(secured []byte, pub crypto.PublicKey) (*Proof, error) {
	if len(secured) > did.MaxDocument {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the document has more than %d bytes", did.MaxDocument)
	}
	if err := strictjson.Check(secured); err != nil {
		return nil, err
	}
	members, err := strictjson.Object(secured)
	if err != nil {
		return nil, err
	}
	raw, has := members["proof"]
	if !has {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the document has no proof")
	}
	if raw[0] == '[' {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "documents with a list of proofs are not supported")
	}
	proof, err := Receive(raw)
	if err != nil {
		return nil, err
	}
	delete(members, "proof")
	if proof.Context != nil {
		// The document may have been given more contexts since, but its own have to be those that were signed.
		if !startsWith(members["@context"], proof.Context) {
			return nil, holdfast.Errorf(holdfast.ErrIntegrity, "", "the document does not have the contexts of its proof")
		}
		members["@context"] = proof.Context
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "encode document: %w", err)
	}
	canonical, err := did.Canonicalize(text)
	if err != nil {
		return nil, err
	}
	if err := proof.VerifyCanonical(canonical, pub); err != nil {
		return nil, err
	}
	return &proof.Proof, nil
}

// startsWith reports whether the contexts in whole begin with those in start.
func startsWith(whole, start json.RawMessage) bool {
	a, errA := contexts(whole)
	b, errB := contexts(start)
	if errA != nil || errB != nil || len(a) < len(b) {
		return false
	}
	for i := range b {
		x, errX := did.Canonicalize(a[i])
		y, errY := did.Canonicalize(b[i])
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}

func contexts(raw json.RawMessage) ([]json.RawMessage, error) {
	if len(raw) > 0 && raw[0] == '[' {
		return strictjson.Array(raw)
	}
	return []json.RawMessage{raw}, nil
}
