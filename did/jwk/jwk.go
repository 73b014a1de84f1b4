// Package jwk is the DID method did:jwk: the identifier is a public JSON Web Key.
//
// As with did:key there is no rotation and no deactivation. Other than did:key it can say what a key is for: "use" is sig
// or enc. The exact bytes of the JWK are the identity, so that one key has many DIDs; [Create] makes the one whose JWK
// has no white space and its members in the order of JCS.
package jwk

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"encoding/base64"

	"holdfast/did"
	"holdfast/internal/pubkey"
)

// Method is the method's name.
const Method = "jwk"

const prefix = "did:" + Method + ":"

// fragment is that of the one verification method.
const fragment = "#0"

// Create returns the DID of a public key: with use enc for an *ecdh.PublicKey, with use sig otherwise, because a key
// has one purpose here.
func Create(pub crypto.PublicKey) (string, error) {
	key := pubkey.JWK{Public: pub, Use: "sig"}
	if _, ok := pub.(*ecdh.PublicKey); ok {
		key.Use = "enc"
	}
	text, err := key.Marshal()
	if err != nil {
		return "", err
	}
	return prefix + base64.RawURLEncoding.EncodeToString(text), nil
}

// PublicKey returns the key that a did:jwk is: for use enc on an elliptic curve an *ecdh.PublicKey.
func PublicKey(s string) (crypto.PublicKey, error) {
	key, _, err := parse(s)
	return key.Public, err
}

// parse returns the JWK in a DID, and its text.
func parse(s string) (key pubkey.JWK, text []byte, err error) {
	parsed, err := did.Parse(s)
	if err != nil {
		return key, nil, err
	}
	if parsed.Method != Method {
		return key, nil, did.Problemf(did.InvalidDID, "a DID of method %q is not a did:jwk", parsed.Method)
	}
	text, err = base64.RawURLEncoding.Strict().DecodeString(parsed.ID)
	if err != nil {
		return key, nil, did.Problemf(did.InvalidDID, "a did:jwk continues with a JWK in base64url without padding")
	}
	key, err = pubkey.ParseJWK(text)
	if err != nil {
		return key, nil, did.Problemf(did.InvalidDID, "the did:jwk holds no public key that is known here: %w", err)
	}
	return key, text, nil
}

// Resolver resolves did:jwk. The zero Resolver is ready for use.
type Resolver struct{}

var _ did.Resolver = Resolver{}

// Resolve returns the document that the DID stands for: one verification method of type JsonWebKey2020 with fragment #0
// and the JWK as it is in the DID. It has every relationship, except that use sig leaves out keyAgreement and use enc
// everything else; keys that can only sign or only agree are treated as if their use said so. It touches neither disk
// nor network.
func (Resolver) Resolve(_ context.Context, s string, options *did.ResolveOptions) (*did.Resolution, error) {
	key, text, err := parse(s)
	if err != nil {
		return nil, err
	}
	if !options.Latest() {
		return nil, did.Problemf(did.FeatureNotSupported, "a did:jwk has no versions")
	}
	d := &did.Document{
		Context: []string{did.ContextDID, did.ContextJWS2020},
		ID:      s,
		VerificationMethod: []did.VerificationMethod{
			{ID: s + fragment, Type: did.TypeJSONWebKey2020, Controller: s, PublicKeyJWK: text},
		},
	}
	only := []string{s + fragment}
	_, agrees := key.Public.(*ecdh.PublicKey)
	if signs := !agrees && key.Use != "enc"; signs {
		d.Authentication, d.AssertionMethod, d.CapabilityInvocation, d.CapabilityDelegation = only, only, only, only
	}
	if agrees || key.Use == "" && canAgree(key) {
		d.KeyAgreement = only
	}
	return did.NewResolution(d)
}

// canAgree reports whether a key that does not say what it is for could be used for key agreement.
func canAgree(key pubkey.JWK) bool {
	if key.Algorithm != "" {
		return false
	}
	nist, ok := key.Public.(interface {
		ECDH() (*ecdh.PublicKey, error)
	})
	if !ok {
		return false
	}
	_, err := nist.ECDH()
	return err == nil
}
