package webvh

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"holdfast/did"
	"holdfast/internal/strictjson"
)

// service is an implicit service, in the words of the specification.
type service struct {
	Context  string `json:"@context,omitempty"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Endpoint string `json:"serviceEndpoint"`
}

// implicitServices returns the services every did:webvh has (sections DID URL Path Resolution and WHOIS Resolution).
func implicitServices(location *Location) []service {
	return []service{
		{ID: "#files", Type: "relativeRef", Endpoint: location.base()},
		{
			Context: "https://identity.foundation/linked-vp/contexts/v1", ID: "#whois",
			Type: "LinkedVerifiablePresentation", Endpoint: location.base() + "whois.vp",
		},
	}
}

// withServices returns the document with the implicit services that it does not define itself, and otherwise as it was.
func withServices(state json.RawMessage, id string) (json.RawMessage, error) {
	location, err := Parse(id)
	if err != nil {
		return nil, err
	}
	members, err := strictjson.Members(state)
	if err != nil {
		return nil, err
	}
	index := slices.IndexFunc(members, func(m strictjson.Member) bool { return m.Name == "service" })
	if index < 0 {
		index = len(members)
		members = append(members, strictjson.Member{Name: "service", Value: []byte("[]")})
	}
	list, err := strictjson.Array(members[index].Value)
	if err != nil {
		return nil, did.Problemf(did.InvalidDIDDocument, "service is not an array")
	}
	for _, implicit := range implicitServices(location) {
		if slices.ContainsFunc(list, func(raw json.RawMessage) bool { return hasID(raw, implicit.ID, id) }) {
			continue
		}
		text, err := json.Marshal(implicit)
		if err != nil {
			return nil, bad("encode service: %w", err)
		}
		list = append(list, text)
	}
	members[index].Value = joinArray(list)
	return joinObject(members)
}

// hasID reports whether a service has the id fragment, relative or absolute.
func hasID(raw json.RawMessage, fragment, document string) bool {
	object, err := strictjson.Object(raw)
	if err != nil {
		return false
	}
	id, err := strictjson.String(object["id"])
	return err == nil && (id == fragment || id == document+fragment)
}

func joinArray(list []json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, element := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(element)
	}
	b.WriteByte(']')
	return b.Bytes()
}

func joinObject(members []strictjson.Member) (json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.Name)
		if err != nil {
			return nil, bad("encode member name: %w", err)
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(m.Value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// WebDocument returns the document of the parallel did:web for the latest version, to be published as did.json beside
// the log (section Publishing a Parallel did:web DID): the same document under the other name, with the did:webvh in
// alsoKnownAs. A log with a Problem has none.
func (l *Log) WebDocument() ([]byte, error) {
	if l.problem != nil {
		return nil, did.Problemf(did.InvalidDID, "the DID's log is not valid: %w", l.problem)
	}
	latest := l.Latest()
	location, err := Parse(latest.DID)
	if err != nil {
		return nil, err
	}
	document, err := withServices(latest.State, latest.DID)
	if err != nil {
		return nil, err
	}
	text := bytes.ReplaceAll(document, []byte(prefix+location.SCID+":"), []byte("did:web:"))
	if err := strictjson.Check(text); err != nil {
		return nil, err
	}
	members, err := strictjson.Members(text)
	if err != nil {
		return nil, err
	}
	return setAlsoKnownAs(members, func(known []string) []string {
		return slices.DeleteFunc(append(known, latest.DID), func(s string) bool {
			return s == strings.Replace(latest.DID, prefix+location.SCID+":", "did:web:", 1)
		})
	})
}

// setAlsoKnownAs returns the object with its alsoKnownAs changed, without duplicates.
func setAlsoKnownAs(members []strictjson.Member, change func([]string) []string) (json.RawMessage, error) {
	index := slices.IndexFunc(members, func(m strictjson.Member) bool { return m.Name == "alsoKnownAs" })
	known := []string{}
	if index >= 0 {
		var err error
		if known, err = strictjson.Strings(members[index].Value); err != nil {
			return nil, did.Problemf(did.InvalidDIDDocument, "alsoKnownAs is not an array of strings")
		}
	} else {
		index = len(members)
		members = append(members, strictjson.Member{Name: "alsoKnownAs"})
	}
	unique := []string{}
	for _, name := range change(known) {
		if !slices.Contains(unique, name) {
			unique = append(unique, name)
		}
	}
	text, err := json.Marshal(unique)
	if err != nil {
		return nil, bad("encode alsoKnownAs: %w", err)
	}
	members[index].Value = text
	return joinObject(members)
}
