package custody

import (
	"context"
	"encoding/json"
	"strings"

	"holdfast"
	"holdfast/custody/store"
	"holdfast/did"
	"holdfast/did/webvh"
	"holdfast/internal/pubkey"
)

// fragmentLength is how many characters of its multikey name a key in a document. Two keys of one document that end alike
// are refused as the document's own check does.
const fragmentLength = 12

// webvhDID makes the first entry of a did:webvh log.
func (s *Service) webvhDID(ctx context.Context, r CreateDIDRequest, control Key) (store.DID, error) {
	controlKey, err := s.webvhControl(ctx, control)
	if err != nil {
		return store.DID{}, err
	}
	keys := []store.DIDKey{{KeyID: control.ID, Role: RoleControl}}
	next, err := s.keysNamed(ctx, r.NextKeys)
	if err != nil {
		return store.DID{}, err
	}
	var hashes []string
	for _, k := range next {
		multikey, err := nextMultikey(k, control)
		if err != nil {
			return store.DID{}, err
		}
		hashes = append(hashes, webvh.KeyHash(multikey))
		keys = append(keys, store.DIDKey{KeyID: k.ID, Role: RoleNext})
	}
	document, documentKeys, err := s.webvhDocument(ctx, r)
	if err != nil {
		return store.DID{}, err
	}
	var path []string
	if r.Path != "" {
		path = strings.Split(r.Path, "/")
	}
	created, err := webvh.Create(ctx, webvh.CreateRequest{
		Domain:        r.Domain,
		Path:          path,
		UpdateKey:     controlKey,
		NextKeyHashes: hashes,
		Document:      document,
		VersionTime:   s.cfg.Now(),
		Portable:      r.Portable,
	})
	if err != nil {
		return store.DID{}, err
	}
	resolution, err := created.Log.Resolve(nil)
	if err != nil {
		return store.DID{}, err
	}
	location, err := webvh.Parse(created.DID)
	if err != nil {
		return store.DID{}, err
	}
	return store.DID{
		DID:      created.DID,
		Log:      string(created.Entry) + "\n",
		Document: string(resolution.JSON),
		URL:      location.LogURL(),
		Keys:     append(keys, documentKeys...),
	}, nil
}

// webvhControl is the control key as package webvh wants it; its signatures are made as any other.
func (s *Service) webvhControl(ctx context.Context, k Key) (webvh.Key, error) {
	if err := wantDIDKey(k, holdfast.EdDSA, PurposeDIDControl, "controls a did:webvh"); err != nil {
		return webvh.Key{}, err
	}
	multikey, err := pubkey.MarshalMultikey(k.Public)
	if err != nil {
		return webvh.Key{}, err
	}
	sign := func(ctx context.Context, message []byte) ([]byte, error) { return s.Sign(ctx, k.Name, message) }
	return webvh.Key{Multikey: multikey, Sign: sign}, ctx.Err()
}

// nextMultikey returns the multikey whose hash commits to k.
func nextMultikey(k, control Key) (string, error) {
	purpose := PurposeDIDNext
	if k.Purpose == PurposeRecoveryToken {
		purpose = PurposeRecoveryToken
	}
	if err := wantDIDKey(k, holdfast.EdDSA, purpose, "takes over control of a did:webvh"); err != nil {
		return "", err
	}
	if k.ID == control.ID {
		return "", holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"%s cannot be the key that takes over from itself", k.Name)
	}
	return pubkey.MarshalMultikey(k.Public)
}

// wantDIDKey holds keys to one algorithm and one purpose. An empty algorithm takes any.
func wantDIDKey(k Key, a holdfast.Algorithm, p Purpose, does string) error {
	if a != "" && k.Algorithm != a {
		return holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"%s is an %s key; an %s key %s", k.Name, k.Algorithm, a, does)
	}
	if k.Purpose != p {
		return holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"%s was made for %s; a key of purpose %s %s", k.Name, k.Purpose, p, does)
	}
	return nil
}

// webvhDocument returns the template of the document and what its keys do.
func (s *Service) webvhDocument(ctx context.Context, r CreateDIDRequest) ([]byte, []store.DIDKey, error) {
	if len(r.Authentication)+len(r.Assertion)+len(r.KeyAgreement) == 0 {
		return nil, nil, holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"the document would have no keys: name one to authenticate, to assert or for key agreement")
	}
	doc := did.Document{Context: []string{did.ContextDID, did.ContextMultikey}, ID: "{DID}"}
	var keys []store.DIDKey
	for _, group := range []struct {
		names        []string
		purpose      Purpose
		relationship did.Relationship
		ids          *[]string
	}{
		{r.Authentication, PurposeDIDAuth, did.Authentication, &doc.Authentication},
		{r.Assertion, PurposeAssertion, did.AssertionMethod, &doc.AssertionMethod},
		{r.KeyAgreement, PurposeKeyAgreement, did.KeyAgreement, &doc.KeyAgreement},
	} {
		named, err := s.keysNamed(ctx, group.names)
		if err != nil {
			return nil, nil, err
		}
		for _, k := range named {
			if err := wantDIDKey(k, "", group.purpose, "is listed for "+string(group.relationship)); err != nil {
				return nil, nil, err
			}
			multikey, err := pubkey.MarshalMultikey(k.Public)
			if err != nil {
				return nil, nil, err
			}
			fragment := multikey[len(multikey)-fragmentLength:]
			id := "{DID}#" + fragment
			doc.VerificationMethod = append(doc.VerificationMethod, did.VerificationMethod{
				ID: id, Type: did.TypeMultikey, Controller: "{DID}", PublicKeyMultibase: multikey})
			*group.ids = append(*group.ids, id)
			keys = append(keys, store.DIDKey{KeyID: k.ID, Role: string(group.relationship), Fragment: fragment})
		}
	}
	text, err := json.Marshal(doc)
	return text, keys, err
}
