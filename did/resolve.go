package did

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// Resolver turns DIDs into documents (DID Resolution, section 4).
type Resolver interface {
	// Resolve returns the document of a DID. options may be nil. It fails with an *holdfast.Error: one with a [Problem]
	// when the DID, the options or what was found are at fault; ErrUnavailable or ErrDenied when what the method needs
	// could not be fetched; [ProblemOf] shows any of them to the one who asked. ctx.Err() is returned as it is.
	Resolve(ctx context.Context, did string, options *ResolveOptions) (*Resolution, error)
}

// Fetcher gets a document from the web for methods that need it. Package fetch has the one for use against the world.
type Fetcher interface {
	// Fetch returns the body that url answers with. It returns ErrNotFound when there is none (404, 410), ErrDenied for
	// an address that must not be asked, ErrInvalid for an answer that is too long, ErrUnavailable otherwise.
	Fetch(ctx context.Context, url string) ([]byte, error)
}

// ResolveOptions asks for a version other than the latest. At most one may be set; nil and the zero value ask for the
// latest. Methods without versions refuse all of them with [FeatureNotSupported].
type ResolveOptions struct {
	// VersionID asks for the version with this identifier.
	VersionID string

	// VersionTime asks for the version that was valid then.
	VersionTime time.Time

	// VersionNumber asks for the version with this number, counted from 1 (did:webvh).
	VersionNumber uint64
}

// Latest reports whether the options ask for no version in particular.
func (o *ResolveOptions) Latest() bool {
	return o == nil || o.VersionID == "" && o.VersionTime.IsZero() && o.VersionNumber == 0
}

// Check returns a [Problem] of type [InvalidOptions] when more than one version is asked for.
func (o *ResolveOptions) Check() error {
	if o == nil {
		return nil
	}
	set := 0
	for _, isSet := range []bool{o.VersionID != "", !o.VersionTime.IsZero(), o.VersionNumber != 0} {
		if isSet {
			set++
		}
	}
	if set > 1 {
		return Problemf(InvalidOptions, "versionId, versionTime and versionNumber exclude each other")
	}
	return nil
}

// Resolution is a DID resolution result. It marshals to the three members of DID Resolution, section 4.
type Resolution struct {
	// JSON is the document as its author wrote it, with what the method adds to it.
	JSON json.RawMessage `json:"didDocument"`

	// Document is JSON, parsed.
	Document *Document `json:"-"`

	// DocumentMetadata is about the document.
	DocumentMetadata DocumentMetadata `json:"didDocumentMetadata"`

	// Metadata is about the resolution.
	Metadata ResolutionMetadata `json:"didResolutionMetadata"`
}

// ResolutionMetadata is about one resolution (DID Resolution, section 4.2).
type ResolutionMetadata struct {
	// ContentType is the media type of the document: application/did.
	ContentType string `json:"contentType,omitempty"`

	// Error is what went wrong. Resolvers return errors instead; faces set it in the result they show.
	Error *Problem `json:"error,omitempty"`
}

// MediaType is the media type of DID documents.
const MediaType = "application/did"

// DocumentMetadata is about a document (DID Resolution, section 4.3; did:webvh 1.0, section Read). Numbers are strings
// where these say so. Members that a method does not have are left out.
type DocumentMetadata struct {
	Created       string          `json:"created,omitempty"` // times are in UTC, RFC 3339
	Updated       string          `json:"updated,omitempty"`
	Deactivated   bool            `json:"deactivated,omitempty"`
	VersionID     string          `json:"versionId,omitempty"`
	VersionTime   string          `json:"versionTime,omitempty"`
	VersionNumber uint64          `json:"versionNumber,omitempty"`
	SCID          string          `json:"scid,omitempty"`
	Portable      *bool           `json:"portable,omitempty"`
	TTL           string          `json:"ttl,omitempty"`     // seconds
	Witness       json.RawMessage `json:"witness,omitempty"` // threshold is a string
	Watchers      []string        `json:"watchers,omitempty"`
}

// Methods joins resolvers of methods, by method name, to one resolver. It is not changed once in use.
type Methods map[string]Resolver

var _ Resolver = Methods(nil)

// Resolve asks the resolver of the DID's method. It returns a [Problem] of type [MethodNotSupported] when there is none.
func (m Methods) Resolve(ctx context.Context, did string, options *ResolveOptions) (*Resolution, error) {
	parsed, err := Parse(did)
	if err != nil {
		return nil, err
	}
	if err := options.Check(); err != nil {
		return nil, err
	}
	resolver, ok := m[parsed.Method]
	if !ok {
		names := slices.Sorted(maps.Keys(m))
		return nil, Problemf(MethodNotSupported, "DIDs of method %q cannot be resolved, only those of %s", parsed.Method,
			strings.Join(names, ", "))
	}
	return resolver.Resolve(ctx, did, options)
}

// NewResolution returns the result for a document that a method derives from the DID itself.
func NewResolution(d *Document) (*Resolution, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, Problemf(InternalError, "encode document: %w", err)
	}
	parsed, err := ParseDocument(raw)
	if err != nil {
		return nil, err
	}
	return &Resolution{JSON: raw, Document: parsed, Metadata: ResolutionMetadata{ContentType: MediaType}}, nil
}
