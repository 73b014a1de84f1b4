package webvh

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/did"
	"holdfast/internal/strictjson"
)

// documentPlaceholder stands for the DID in templates of documents.
const documentPlaceholder = "{DID}"

// CreateRequest says what DID to create.
type CreateRequest struct {
	// Domain is the domain name the DID is bound to, with the port after a colon unless that is 443: dids.example.com,
	// dids.example.com:8443. Internationalized names are converted to their ASCII form. Required.
	Domain string

	// Path is the segments of the path below the domain, not percent-encoded. A segment may contain {SCID}, the SCID of
	// the new DID. Empty means /.well-known/.
	Path []string

	// UpdateKey signs the entry and is the first of the update keys. Required.
	UpdateKey Key

	// UpdateKeys are further multikeys that may sign the next entry.
	UpdateKeys []string

	// NextKeyHashes are the commitments ([KeyHash]) to the keys of the next entry. Any turn pre-rotation on.
	NextKeyHashes []string

	// Document is the DID document as JSON, with {DID} where the DID belongs. Its id is "{DID}". Required.
	Document []byte

	// VersionTime is when the DID is created. It is rounded down to the second. Required.
	VersionTime time.Time

	// Portable lets the DID move to another location later. It cannot be turned on afterwards.
	Portable bool

	// Witness says who has to approve entries; the zero Witness nobody. This entry needs approval too ([Approve]).
	Witness Witness

	// Watchers are the URLs of watchers.
	Watchers []string

	// TTL is how long resolutions may be cached, in seconds. Nil leaves it at the default, 3600.
	TTL *uint32

	// Web adds the parallel did:web to alsoKnownAs (see [Log.WebDocument]).
	Web bool
}

// Created is a new entry and what it says.
type Created struct {
	// DID is the DID after the entry.
	DID string

	// VersionID is the entry's versionId.
	VersionID string

	// Entry is the line to append to did.jsonl, without the newline.
	Entry []byte

	// Log is the log with the entry, verified. Where it needs witnesses, their approval is still due.
	Log *Log
}

// Create makes a DID: the first entry of its log, signed once by the update key. It is checked as a resolver would
// before the key is asked. It returns ErrInvalid for a request that cannot work, and the signer's error when signing fails.
func Create(ctx context.Context, request CreateRequest) (*Created, error) {
	location, err := newLocation(request.Domain, request.Path)
	if err != nil {
		return nil, err
	}
	if request.VersionTime.IsZero() {
		return nil, bad("the entry needs a versionTime")
	}
	template := prefix + placeholder + ":" + location.suffix()
	// The path may hold the placeholder, which encodeSegment has written as %7BSCID%7D.
	template = strings.ReplaceAll(template, encodeSegment(placeholder), placeholder)
	document := strings.ReplaceAll(string(request.Document), documentPlaceholder, template)
	if request.Web {
		web := strings.Replace(template, prefix+placeholder+":", "did:web:", 1)
		if document, err = addKnownAs(document, web); err != nil {
			return nil, err
		}
	}
	parameters, err := request.parameters().json()
	if err != nil {
		return nil, bad("encode parameters: %w", err)
	}
	e, scid, err := firstEntry(parameters, []byte(document), request.VersionTime)
	if err != nil {
		return nil, err
	}
	return e.finish(ctx, &Log{}, scid, request.UpdateKey)
}

// newLocation reads the parts of a request as they would be read from the DID.
func newLocation(domain string, path []string) (*Location, error) {
	host, port, hasPort := strings.Cut(domain, ":")
	authority := strings.ReplaceAll(host, "%", "%25")
	if hasPort {
		authority += "%3A" + port
	}
	segments := make([]string, len(path))
	for i, segment := range path {
		segments[i] = encodeSegment(segment)
	}
	return parseLocation(authority, segments)
}

func (r *CreateRequest) parameters() *changes {
	c := &changes{
		method: specVersion, scid: placeholder,
		updateKeys:    append([]string{r.UpdateKey.Multikey}, r.UpdateKeys...),
		nextKeyHashes: r.NextKeyHashes, watchers: r.Watchers, ttl: r.TTL,
	}
	if r.Portable {
		c.portable = new(true)
	}
	if r.Witness.active() {
		c.witness = &r.Witness
	}
	return c
}

// firstEntry makes the first entry of parameters and state that have {SCID} where the SCID belongs.
func firstEntry(parameters, state []byte, at time.Time) (e *entry, scid string, err error) {
	e, err = newEntry(parameters, state, at)
	if err != nil {
		return nil, "", err
	}
	scid = multihash(e.canonical(placeholder))
	for _, part := range []*[]byte{&e.canonicalParameters, &e.canonicalState} {
		text := strings.ReplaceAll(string(*part), placeholder, scid)
		if *part, err = did.Canonicalize([]byte(text)); err != nil {
			return nil, "", err
		}
	}
	return e, scid, nil
}

func newEntry(parameters, state []byte, at time.Time) (e *entry, err error) {
	e = &entry{time: at.UTC().Truncate(time.Second)}
	e.versionTime = e.time.Format(time.RFC3339)
	if e.canonicalParameters, err = did.Canonicalize(parameters); err != nil {
		return nil, err
	}
	e.canonicalState, err = did.Canonicalize(state)
	return e, err
}

// finish chains an entry to a log whose last versionId (or SCID) is previous, checks that the result is a valid log, and
// only then has it signed: a device is not asked for signatures that nobody would accept.
func (e *entry) finish(ctx context.Context, log *Log, previous string, key Key) (*Created, error) {
	e.number = uint64(len(log.versions)) + 1
	e.versionID = strconv.FormatUint(e.number, 10) + "-" + multihash(e.canonical(previous))
	e.state = e.canonicalState
	if err := e.readContent(e.canonicalParameters, e.canonicalState); err != nil {
		return nil, err
	}
	if _, err := did.ParseDocument(e.state); err != nil {
		return nil, bad("the entry would not be valid: %w", err)
	}
	e.signers = []string{key.Multikey}
	version, err := log.following(e, e.time)
	if err != nil {
		return nil, bad("the entry would not be valid: %w", err)
	}
	proof, err := key.prove(ctx, e.canonical(e.versionID), e.time)
	if err != nil {
		return nil, err
	}
	// In the order of the specification, for people who read logs.
	line, err := joinObject([]strictjson.Member{
		{Name: "versionId", Value: quote(e.versionID)},
		{Name: "versionTime", Value: quote(e.versionTime)},
		{Name: "parameters", Value: e.canonicalParameters},
		{Name: "state", Value: e.canonicalState},
		{Name: "proof", Value: joinArray([]json.RawMessage{proof})},
	})
	if err == nil && len(line) > did.MaxDocument {
		err = bad("the entry would have more than %d bytes", did.MaxDocument)
	}
	if err != nil {
		return nil, err
	}
	extended := &Log{versions: append(slices.Clip(log.versions), version)} // Clip: log keeps its own array
	return &Created{DID: e.id, VersionID: e.versionID, Entry: line, Log: extended}, nil
}

// quote writes plain ASCII as a JSON string.
func quote(s string) json.RawMessage { return json.RawMessage(strconv.Quote(s)) }

func addKnownAs(document, name string) (string, error) {
	if err := strictjson.Check([]byte(document)); err != nil {
		return "", err
	}
	members, err := strictjson.Members([]byte(document))
	if err != nil {
		return "", err
	}
	text, err := setAlsoKnownAs(members, func(known []string) []string { return append(known, name) })
	return string(text), err
}
