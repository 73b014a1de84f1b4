package custody

import (
	"context"
	"crypto"
	"slices"
	"time"

	"holdfast"
	"holdfast/custody/store"
	"holdfast/did"
	didjwk "holdfast/did/jwk"
	didkey "holdfast/did/key"
	"holdfast/did/webvh"
)

// The roles of keys in a DID, besides the verification relationships of DID Core.
const (
	RoleControl = "control" // signs the DID's log, or is the DID (did:key, did:jwk)
	RoleNext    = "next"    // committed to as a key that may take over control
)

// DID is a decentralized identifier whose keys are in custody.
type DID struct {
	DID      string
	Method   string
	Document string // JSON
	Log      string // did.jsonl for did:webvh, otherwise empty
	URL      string // where the log is published; empty for other methods
	Created  time.Time
	Keys     []DIDKey // nil in lists
}

// DIDKey says what a key does for a DID.
type DIDKey struct {
	Role string // RoleControl, RoleNext or a verification relationship
	Name string // of the key; its id in brackets when it was destroyed since
}

// CreateDIDRequest says what DID to make. Method and Key are required; the rest is for did:webvh.
type CreateDIDRequest struct {
	Method string // "key", "jwk" or "webvh"

	// Key is the name of the key that is the DID (key, jwk) or that controls it (webvh; EdDSA).
	Key string

	// NextKeys are the names of the EdDSA keys that may take over control: only their hashes are published.
	NextKeys []string

	// Domain is the host, with ":port" when that is not 443; Path the segments below it, "teams/alice".
	Domain, Path string

	// Authentication, Assertion and KeyAgreement name the keys in the document, each made for that purpose; at least one.
	// The control key is not among them: one key, one purpose.
	Authentication, Assertion, KeyAgreement []string

	// Portable lets the DID move to another host later.
	Portable bool
}

// check returns ErrInvalid for a method that there is not, and for what the method does not have.
func (r *CreateDIDRequest) check() error {
	switch r.Method {
	case webvh.Method:
		return nil
	case didkey.Method, didjwk.Method:
	default:
		return holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"unknown DID method %q: choose key, jwk or webvh", r.Method)
	}
	if r.Domain != "" || r.Path != "" || r.Portable ||
		len(r.NextKeys)+len(r.Authentication)+len(r.Assertion)+len(r.KeyAgreement) > 0 {
		return holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"a did:%s is its key alone: domain, path and further keys are for webvh", r.Method)
	}
	return nil
}

// CreateDID makes a DID of keys in custody. A did:webvh is signed by its control key in its device, stored, and from then
// on published at its URL. It returns ErrInvalid for keys that do not fit the method or the role, ErrExists when the DID
// or its URL is taken.
func (s *Service) CreateDID(ctx context.Context, r CreateDIDRequest) (DID, error) {
	if err := s.enter(ctx); err != nil {
		return DID{}, err
	}
	defer s.calls.leave()
	if err := r.check(); err != nil {
		return DID{}, err
	}
	control, err := s.keyNamed(ctx, r.Key)
	if err != nil {
		return DID{}, err
	}
	var made store.DID
	switch r.Method {
	case didkey.Method:
		made, err = keyDID(ctx, control, didkey.Create, didkey.Resolver{})
	case didjwk.Method:
		made, err = keyDID(ctx, control, didjwk.Create, didjwk.Resolver{})
	default:
		made, err = s.webvhDID(ctx, r, control)
	}
	if err != nil {
		return DID{}, err
	}
	made.Method = r.Method
	made.Created = s.cfg.Now().UTC()
	made.Updated = made.Created
	if err := s.cfg.Store.PutDID(ctx, made); err != nil {
		return DID{}, err
	}
	return s.didOf(ctx, made)
}

// keyDID makes a DID that is a public key.
func keyDID(
	ctx context.Context, k Key, create func(crypto.PublicKey) (string, error), resolver did.Resolver,
) (store.DID, error) {
	if k.Public == nil {
		return store.DID{}, holdfast.Errorf(holdfast.ErrInvalid, "create DID",
			"%s is a secret key; a DID is made of public ones", k.Name)
	}
	name, err := create(k.Public)
	if err != nil {
		return store.DID{}, err
	}
	resolution, err := resolver.Resolve(ctx, name, nil)
	if err != nil {
		return store.DID{}, err
	}
	return store.DID{
		DID:      name,
		Document: string(resolution.JSON),
		Keys:     []store.DIDKey{{KeyID: k.ID, Role: RoleControl}},
	}, nil
}

// DID returns a DID that was made here, ErrNotFound if it was not.
func (s *Service) DID(ctx context.Context, name string) (DID, error) {
	if err := s.enter(ctx); err != nil {
		return DID{}, err
	}
	defer s.calls.leave()
	d, err := s.cfg.Store.DID(ctx, name)
	if err != nil {
		return DID{}, err
	}
	return s.didOf(ctx, d)
}

// DIDByURL returns the DID that is published at url, without its keys.
func (s *Service) DIDByURL(ctx context.Context, url string) (DID, error) {
	if err := s.enter(ctx); err != nil {
		return DID{}, err
	}
	defer s.calls.leave()
	d, err := s.cfg.Store.DIDByURL(ctx, url)
	if err != nil {
		return DID{}, err
	}
	return s.didOf(ctx, d)
}

// DIDs lists DIDs in the order of their text, a page of up to limit at a time (0 is DefaultPage, more than MaxPage is
// MaxPage): those after the one given. next is what to put there for the next page, empty after the last.
func (s *Service) DIDs(ctx context.Context, after string, limit int) (dids []DID, next string, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", err
	}
	defer s.calls.leave()
	if limit, err = pageSize(limit); err != nil {
		return nil, "", err
	}
	stored, err := s.cfg.Store.DIDs(ctx, after, limit+1) // one more, to know whether there is a next page
	if err != nil {
		return nil, "", err
	}
	if len(stored) > limit {
		stored = stored[:limit]
		next = stored[limit-1].DID
	}
	for _, d := range stored {
		view, err := s.didOf(ctx, d)
		if err != nil {
			return nil, "", err
		}
		dids = append(dids, view)
	}
	return dids, next, nil
}

// DIDsOfKey returns the DIDs made here that the key called name does something for.
func (s *Service) DIDsOfKey(ctx context.Context, name string) ([]string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	k, err := s.keyNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.DIDsOfKey(ctx, k.ID)
}

// didOf is a stored DID as callers see it, with the names of its keys.
func (s *Service) didOf(ctx context.Context, d store.DID) (DID, error) {
	view := DID{DID: d.DID, Method: d.Method, Document: d.Document, Log: d.Log, URL: d.URL, Created: d.Created}
	for _, k := range d.Keys {
		known, err := s.cfg.Store.KeyByID(ctx, k.KeyID)
		switch {
		case err == nil:
			view.Keys = append(view.Keys, DIDKey{Role: k.Role, Name: known.Name})
		case holdfast.CodeOf(err) == holdfast.ErrNotFound:
			view.Keys = append(view.Keys, DIDKey{Role: k.Role, Name: "[" + k.KeyID.String() + "]"})
		default:
			return DID{}, err
		}
	}
	return view, nil
}

// keyNamed is Key for a caller that is inside the service already.
func (s *Service) keyNamed(ctx context.Context, name string) (Key, error) {
	e, err := s.find(ctx, name)
	if err != nil {
		return Key{}, err
	}
	return e.view(), nil
}

// keysNamed returns the keys called names, each once.
func (s *Service) keysNamed(ctx context.Context, names []string) ([]Key, error) {
	var keys []Key
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "create DID", "the key %s is named twice", name)
		}
		k, err := s.keyNamed(ctx, name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}
