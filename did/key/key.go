// Package key is the DID method did:key: the identifier is the public key.
//
// Such a DID can be neither rotated nor deactivated; losing the key loses the DID, and a thief of the key has it for
// good. Its specification recommends long-lived use only "when accompanied with high confidence in hardware isolation".
// Here it serves as the identity of witnesses, trustees and signers that a policy names.
package key

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"strings"

	"holdfast"
	"holdfast/did"
	"holdfast/internal/pubkey"
)

// Method is the method's name.
const Method = "key"

const prefix = "did:" + Method + ":"

// Create returns the DID of a public key: Ed25519, X25519, P-256, P-384, P-521, secp256k1 or RSA. It returns
// ErrUnsupported for ECDH keys on NIST curves: their did:key is that of a signature key, which they are not. did:jwk can
// say so.
func Create(pub crypto.PublicKey) (string, error) {
	if agreement, ok := pub.(*ecdh.PublicKey); ok && agreement != nil && agreement.Curve() != ecdh.X25519() {
		return "", holdfast.Errorf(holdfast.ErrUnsupported, "",
			"a did:key cannot say that a key on %v is for key agreement: use did:jwk", agreement.Curve())
	}
	multikey, err := pubkey.MarshalMultikey(pub)
	if err != nil {
		return "", err
	}
	return prefix + multikey, nil
}

// PublicKey returns the key that a did:key is. Only the base58btc form is accepted, so that one key has one DID.
func PublicKey(s string) (crypto.PublicKey, error) {
	parsed, err := did.Parse(s)
	if err != nil {
		return nil, err
	}
	if parsed.Method != Method {
		return nil, did.Problemf(did.InvalidDID, "a DID of method %q is not a did:key", parsed.Method)
	}
	if !strings.HasPrefix(parsed.ID, "z") {
		return nil, did.Problemf(did.InvalidDID, "a did:key continues with z, for base58btc")
	}
	pub, err := pubkey.ParseMultikey(parsed.ID)
	if err != nil {
		return nil, did.Problemf(did.InvalidDID, "the did:key holds no public key that is known here: %w", err)
	}
	return pub, nil
}

// Resolver resolves did:key. The zero Resolver is ready for use.
type Resolver struct{}

var _ did.Resolver = Resolver{}

// Resolve returns the document that the DID stands for: one verification method of type Multikey with every relationship
// but keyAgreement; for an Ed25519 key a second one, the X25519 key derived from it, with keyAgreement; for an X25519 key
// keyAgreement alone. It touches neither disk nor network.
func (Resolver) Resolve(_ context.Context, s string, options *did.ResolveOptions) (*did.Resolution, error) {
	pub, err := PublicKey(s)
	if err != nil {
		return nil, err
	}
	if !options.Latest() {
		return nil, did.Problemf(did.FeatureNotSupported, "a did:key has no versions")
	}
	multikey := strings.TrimPrefix(s, prefix)
	method := newMethod(s, multikey)
	d := &did.Document{
		Context:            []string{did.ContextDID, did.ContextMultikey},
		ID:                 s,
		VerificationMethod: []did.VerificationMethod{method},
	}
	if _, ok := pub.(*ecdh.PublicKey); ok {
		d.KeyAgreement = []string{method.ID}
		return did.NewResolution(d)
	}
	only := []string{method.ID}
	d.Authentication, d.AssertionMethod, d.CapabilityInvocation, d.CapabilityDelegation = only, only, only, only
	if signing, ok := pub.(ed25519.PublicKey); ok {
		if err := addDerived(d, signing); err != nil {
			return nil, err
		}
	}
	return did.NewResolution(d)
}

func newMethod(controller, multikey string) did.VerificationMethod {
	return did.VerificationMethod{
		ID: controller + "#" + multikey, Type: did.TypeMultikey, Controller: controller, PublicKeyMultibase: multikey,
	}
}

func addDerived(d *did.Document, signing ed25519.PublicKey) error {
	agreement, err := pubkey.X25519FromEd25519(signing)
	if err != nil {
		return did.Problemf(did.InvalidDID, "the did:key holds no usable public key: %w", err)
	}
	multikey, err := pubkey.MarshalMultikey(agreement)
	if err != nil {
		return did.Problemf(did.InvalidDID, "derive key for key agreement: %w", err)
	}
	method := newMethod(d.ID, multikey)
	d.VerificationMethod = append(d.VerificationMethod, method)
	d.KeyAgreement = []string{method.ID}
	return nil
}
