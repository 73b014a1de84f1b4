package did

import (
	"crypto"
	"encoding/json"
	"slices"
	"strings"

	"holdfast"
	"holdfast/internal/pubkey"
	"holdfast/internal/strictjson"
)

// The contexts of documents made here.
const (
	ContextDID         = "https://www.w3.org/ns/did/v1"
	ContextMultikey    = "https://w3id.org/security/multikey/v1"
	ContextJSONWebKey  = "https://w3id.org/security/jwk/v1"
	ContextJWS2020     = "https://w3id.org/security/suites/jws-2020/v1"
	TypeMultikey       = "Multikey"       // a verification method with publicKeyMultibase
	TypeJSONWebKey     = "JsonWebKey"     // a verification method with publicKeyJwk
	TypeJSONWebKey2020 = "JsonWebKey2020" // the same, as did:jwk writes it
)

// Relationship is a verification relationship: what a verification method may be used for (DID Core, section 5.3).
type Relationship string

// The verification relationships.
const (
	Authentication       Relationship = "authentication"
	AssertionMethod      Relationship = "assertionMethod"
	KeyAgreement         Relationship = "keyAgreement"
	CapabilityInvocation Relationship = "capabilityInvocation"
	CapabilityDelegation Relationship = "capabilityDelegation"
)

// Relationships returns all verification relationships in the order documents list them.
func Relationships() []Relationship {
	return []Relationship{Authentication, AssertionMethod, KeyAgreement, CapabilityInvocation, CapabilityDelegation}
}

// VerificationMethod is a public key in a document (Controlled Identifiers 1.0, section 2.2). Documents without a
// controller are about, which the standard does not allow; the controller is taken to be the document's subject then.
type VerificationMethod struct {
	ID         string `json:"id"`   // a DID URL; absolute in documents that were parsed
	Type       string `json:"type"` // [TypeMultikey], [TypeJSONWebKey] or another
	Controller string `json:"controller"`

	// The key itself, in one of the two forms.
	PublicKeyMultibase string          `json:"publicKeyMultibase,omitempty"`
	PublicKeyJWK       json.RawMessage `json:"publicKeyJwk,omitempty"`
}

// PublicKey returns the key, in the types of holdfast.Key.Public. It returns ErrUnsupported for verification methods of
// other types than Multikey, JsonWebKey, JsonWebKey2020 and the Multikey-like Ed25519VerificationKey2020 and
// X25519KeyAgreementKey2020, ErrInvalid for a key that does not parse.
func (m VerificationMethod) PublicKey() (crypto.PublicKey, error) {
	switch m.Type {
	case TypeMultikey, "Ed25519VerificationKey2020", "X25519KeyAgreementKey2020":
		if m.PublicKeyJWK != nil {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "verification method %s has two keys", m.ID)
		}
		return pubkey.ParseMultikey(m.PublicKeyMultibase)
	case TypeJSONWebKey, TypeJSONWebKey2020:
		if m.PublicKeyMultibase != "" {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "verification method %s has two keys", m.ID)
		}
		key, err := pubkey.ParseJWK(m.PublicKeyJWK)
		return key.Public, err
	default:
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "verification methods of type %q are not supported", m.Type)
	}
}

// Service is a way to communicate with the subject (DID Core, section 5.4).
type Service struct {
	Context  string          `json:"@context,omitempty"`
	ID       string          `json:"id"` // a URI; absolute in documents that were parsed
	Type     OneOrMore       `json:"type"`
	Endpoint json.RawMessage `json:"serviceEndpoint"` // a URI as a JSON string, an object, or an array of them
}

// OneOrMore is a set of strings that JSON writes as one string when it has one element.
type OneOrMore []string

// MarshalJSON returns a string for one element, an array otherwise.
func (o OneOrMore) MarshalJSON() ([]byte, error) {
	if len(o) == 1 {
		return json.Marshal(o[0])
	}
	return json.Marshal([]string(o))
}

// Document is a DID document (DID Core, section 5). Marshalling gives a document made of these fields alone; that of a
// document somebody else wrote is [Resolution.JSON].
type Document struct {
	Context            []string             `json:"@context,omitempty"` // the contexts that are URLs
	ID                 string               `json:"id"`
	Controller         OneOrMore            `json:"controller,omitempty"`
	AlsoKnownAs        []string             `json:"alsoKnownAs,omitempty"`
	VerificationMethod []VerificationMethod `json:"verificationMethod,omitempty"`

	// The verification relationships hold the ids of verification methods.
	Authentication       []string `json:"authentication,omitempty"`
	AssertionMethod      []string `json:"assertionMethod,omitempty"`
	KeyAgreement         []string `json:"keyAgreement,omitempty"`
	CapabilityInvocation []string `json:"capabilityInvocation,omitempty"`
	CapabilityDelegation []string `json:"capabilityDelegation,omitempty"`

	Service []Service `json:"service,omitempty"`

	// embedded holds the verification methods that a relationship defines for itself alone.
	embedded map[Relationship][]VerificationMethod
}

// ids returns the list of a relationship.
func (d *Document) ids(r Relationship) *[]string {
	switch r {
	case Authentication:
		return &d.Authentication
	case AssertionMethod:
		return &d.AssertionMethod
	case KeyAgreement:
		return &d.KeyAgreement
	case CapabilityInvocation:
		return &d.CapabilityInvocation
	default:
		return &d.CapabilityDelegation
	}
}

// Method returns the verification method with the given id if the document allows it for relationship r. id may be
// relative to the document ("#key-1"). It returns ErrDenied when the document does not allow it, for a signature by
// a key that is listed for something else is not a valid one.
func (d *Document) Method(r Relationship, id string) (VerificationMethod, error) {
	if strings.HasPrefix(id, "#") {
		id = d.ID + id
	}
	if !slices.Contains(Relationships(), r) || !slices.Contains(*d.ids(r), id) {
		return VerificationMethod{}, holdfast.Errorf(holdfast.ErrDenied, "", "%s does not list %s for %s", d.ID, id, r)
	}
	for _, m := range slices.Concat(d.embedded[r], d.VerificationMethod) {
		if m.ID == id {
			return m, nil
		}
	}
	return VerificationMethod{}, holdfast.Errorf(holdfast.ErrDenied, "", "%s lists %s for %s without its key", d.ID, id, r)
}

// ParseDocument returns the document in data, with relative ids made absolute. It returns a [Problem] of type
// [InvalidDIDDocument] for JSON that is not strict (see [Canonicalize]), a member of the wrong type, or an id that
// occurs twice. Members it does not know are ignored.
func ParseDocument(data []byte) (*Document, error) {
	if len(data) > MaxDocument {
		return nil, Problemf(InvalidDIDDocument, "the document has more than %d bytes", MaxDocument)
	}
	if err := strictjson.Check(data); err != nil {
		return nil, Problemf(InvalidDIDDocument, "the document is not strict JSON: %w", err)
	}
	members, err := strictjson.Object(data)
	if err != nil {
		return nil, Problemf(InvalidDIDDocument, "the document is not a JSON object")
	}
	d := &Document{embedded: map[Relationship][]VerificationMethod{}}
	if err := d.read(members); err != nil {
		return nil, Problemf(InvalidDIDDocument, "the document is not valid: %w", err)
	}
	return d, nil
}
