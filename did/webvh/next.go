package webvh

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"holdfast/did"
	"holdfast/internal/strictjson"
)

// NextRequest says what changes with the next entry of a log. Nil fields change nothing.
type NextRequest struct {
	// UpdateKey signs the entry. Without pre-rotation it is one of the log's update keys, with pre-rotation one of the new
	// ones. Required.
	UpdateKey Key

	// UpdateKeys replaces the update keys. With pre-rotation on it is required, and the entry before commits to each.
	UpdateKeys []string

	// NextKeyHashes replaces the commitments. With pre-rotation on it is required; empty but not nil turns it off from the
	// following entry on.
	NextKeyHashes []string

	// Document replaces the DID document; {DID} stands for the DID. Nil keeps it, with the DID replaced if that moves.
	Document []byte

	// VersionTime is the time of the entry, after that of the entry before, rounded down to the second. Required.
	VersionTime time.Time

	// Witness replaces who has to approve entries, after this one if there are witnesses already. The zero Witness ends it.
	Witness *Witness

	// Watchers replaces the watchers.
	Watchers []string

	// TTL replaces the time to live, in seconds.
	TTL *uint32

	// Domain and Path move a portable DID, as in CreateRequest. An empty Domain leaves it where it is.
	Domain string
	Path   []string

	// NotPortable gives up portability for good.
	NotPortable bool

	// Deactivate ends the log: there is no entry after this one.
	Deactivate bool
}

// Next makes the next entry of a verified log. The log is not changed; the result has the new one. The entry is checked
// as a resolver would before the key is asked: a key that may not sign, a missing commitment or a time that is not after
// the last one is ErrInvalid.
func Next(ctx context.Context, log *Log, request NextRequest) (*Created, error) {
	if log.problem != nil {
		return nil, bad("the log does not verify to its end: %w", log.problem)
	}
	if request.VersionTime.IsZero() {
		return nil, bad("the entry needs a versionTime")
	}
	latest := log.Latest()
	document, err := request.document(latest)
	if err != nil {
		return nil, err
	}
	parameters, err := request.parameters().json()
	if err != nil {
		return nil, bad("encode parameters: %w", err)
	}
	e, err := newEntry(parameters, document, request.VersionTime)
	if err != nil {
		return nil, err
	}
	return e.finish(ctx, log, latest.ID, request.UpdateKey)
}

func (r *NextRequest) parameters() *changes {
	c := &changes{
		updateKeys: r.UpdateKeys, nextKeyHashes: r.NextKeyHashes, witness: r.Witness, watchers: r.Watchers, ttl: r.TTL,
	}
	if r.NotPortable {
		c.portable = new(false)
	}
	if r.Deactivate {
		c.deactivated = new(true)
	}
	return c
}

func (r *NextRequest) document(latest Version) ([]byte, error) {
	name := latest.DID
	if r.Domain != "" {
		location, err := newLocation(r.Domain, r.Path)
		if err != nil {
			return nil, err
		}
		location.SCID = latest.Parameters.SCID
		name = strings.ReplaceAll(location.DID(), encodeSegment(placeholder), location.SCID)
	}
	document := []byte(strings.ReplaceAll(string(r.Document), documentPlaceholder, name))
	var err error
	if r.Document == nil {
		if document, err = renamed(latest.State, latest.DID, name); err != nil {
			return nil, err
		}
	}
	if name == latest.DID {
		return document, nil
	}
	text, err := addKnownAs(string(document), latest.DID)
	return []byte(text), err
}

// renamed returns a document with the DID from replaced by to, except in alsoKnownAs, which is about the past.
func renamed(document json.RawMessage, from, to string) ([]byte, error) {
	if from == to {
		return document, nil
	}
	document, err := did.Canonicalize(document) // without escapes that would hide the DID
	if err != nil {
		return nil, err
	}
	members, err := strictjson.Members(document)
	if err != nil {
		return nil, err
	}
	var pairs []string
	// A DID may be the beginning of another one, so the character that ends it is part of what is looked for.
	for _, end := range []string{`"`, "#", "/", "?"} {
		pairs = append(pairs, `"`+from+end, `"`+to+end)
	}
	replacer := strings.NewReplacer(pairs...)
	for i, m := range members {
		if m.Name != "alsoKnownAs" {
			members[i].Value = json.RawMessage(replacer.Replace(string(m.Value)))
		}
	}
	return joinObject(members)
}
