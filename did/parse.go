package did

import (
	"encoding/json"
	"strings"

	"holdfast"
	"holdfast/internal/strictjson"
)

func (d *Document) read(members map[string]json.RawMessage) (err error) {
	if d.ID, err = required(members, "id"); err != nil {
		return err
	}
	if _, err := Parse(d.ID); err != nil {
		return at("id", err)
	}
	if d.Context, err = readContext(members["@context"]); err != nil {
		return at("@context", err)
	}
	if d.Controller, err = readSet(members["controller"]); err != nil {
		return at("controller", err)
	}
	for _, controller := range d.Controller {
		if _, err := Parse(controller); err != nil {
			return at("controller", err)
		}
	}
	if raw, has := members["alsoKnownAs"]; has {
		if d.AlsoKnownAs, err = strictjson.Strings(raw); err != nil {
			return at("alsoKnownAs", err)
		}
	}
	if err := d.readMethods(members); err != nil {
		return err
	}
	return d.readServices(members["service"])
}

func at(name string, err error) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", "%s: %w", name, err)
}

func required(members map[string]json.RawMessage, name string) (string, error) {
	raw, has := members[name]
	if !has {
		return "", holdfast.Errorf(holdfast.ErrInvalid, "", "the member %q is missing", name)
	}
	text, err := strictjson.String(raw)
	if err == nil && text == "" {
		err = holdfast.Errorf(holdfast.ErrInvalid, "", "it is empty")
	}
	if err != nil {
		return "", at(name, err)
	}
	return text, nil
}

// readContext returns the contexts that are strings; objects are left to JSON-LD processors.
func readContext(raw json.RawMessage) (list []string, err error) {
	if raw == nil {
		return nil, nil
	}
	if raw[0] == '"' {
		text, err := strictjson.String(raw)
		return []string{text}, err
	}
	elements, err := strictjson.Array(raw)
	if err != nil {
		return nil, err
	}
	for _, element := range elements {
		switch element[0] {
		case '"':
			text, err := strictjson.String(element)
			if err != nil {
				return nil, err
			}
			list = append(list, text)
		case '{':
		default:
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "a context is a string or an object")
		}
	}
	return list, nil
}

// readSet returns one string or an array of strings; nil for a member that is missing.
func readSet(raw json.RawMessage) ([]string, error) {
	if raw == nil {
		return nil, nil
	}
	if raw[0] == '"' {
		text, err := strictjson.String(raw)
		return []string{text}, err
	}
	return strictjson.Strings(raw)
}

func readArray(raw json.RawMessage) ([]json.RawMessage, error) {
	if raw == nil {
		return nil, nil
	}
	return strictjson.Array(raw)
}

func (d *Document) readMethods(members map[string]json.RawMessage) error {
	seen := map[string]bool{}
	elements, err := readArray(members["verificationMethod"])
	if err != nil {
		return at("verificationMethod", err)
	}
	for _, element := range elements {
		m, err := d.readMethod(element, seen)
		if err != nil {
			return at("verificationMethod", err)
		}
		d.VerificationMethod = append(d.VerificationMethod, m)
	}
	for _, r := range Relationships() {
		elements, err := readArray(members[string(r)])
		if err != nil {
			return at(string(r), err)
		}
		for _, element := range elements {
			id, err := d.readReference(r, element, seen)
			if err != nil {
				return at(string(r), err)
			}
			*d.ids(r) = append(*d.ids(r), id)
		}
	}
	return nil
}

// readReference reads the id of a verification method, or a method that stands in its place.
func (d *Document) readReference(r Relationship, raw json.RawMessage, seen map[string]bool) (string, error) {
	if raw[0] == '{' {
		m, err := d.readMethod(raw, seen)
		d.embedded[r] = append(d.embedded[r], m)
		return m.ID, err
	}
	text, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	return d.absolute(text)
}

func (d *Document) readMethod(raw json.RawMessage, seen map[string]bool) (m VerificationMethod, err error) {
	members, err := strictjson.Object(raw)
	if err != nil {
		return m, err
	}
	for name, value := range map[string]*string{"id": &m.ID, "type": &m.Type} {
		if *value, err = required(members, name); err != nil {
			return m, err
		}
	}
	m.Controller = d.ID
	if _, has := members["controller"]; has {
		if m.Controller, err = required(members, "controller"); err != nil {
			return m, err
		}
	}
	if m.ID, err = d.absolute(m.ID); err != nil {
		return m, at("id", err)
	}
	if seen[m.ID] {
		return m, holdfast.Errorf(holdfast.ErrInvalid, "", "the id %s occurs twice", m.ID)
	}
	seen[m.ID] = true
	if _, err := Parse(m.Controller); err != nil {
		return m, at("controller", err)
	}
	if _, has := members["publicKeyMultibase"]; has {
		if m.PublicKeyMultibase, err = required(members, "publicKeyMultibase"); err != nil {
			return m, err
		}
	}
	if jwk, has := members["publicKeyJwk"]; has {
		if jwk[0] != '{' {
			return m, holdfast.Errorf(holdfast.ErrInvalid, "", "publicKeyJwk is an object")
		}
		m.PublicKeyJWK = jwk
	}
	return m, nil
}

// absolute returns a DID URL for an id that may be relative to the document.
func (d *Document) absolute(id string) (string, error) {
	if strings.HasPrefix(id, "#") {
		id = d.ID + id
	}
	_, err := ParseURL(id)
	return id, err
}

func (d *Document) readServices(raw json.RawMessage) error {
	elements, err := readArray(raw)
	if err != nil {
		return at("service", err)
	}
	seen := map[string]bool{}
	for _, element := range elements {
		s, err := d.readService(element)
		if err == nil && seen[s.ID] {
			err = holdfast.Errorf(holdfast.ErrInvalid, "", "the id %s occurs twice", s.ID)
		}
		if err != nil {
			return at("service", err)
		}
		seen[s.ID] = true
		d.Service = append(d.Service, s)
	}
	return nil
}

func (d *Document) readService(raw json.RawMessage) (s Service, err error) {
	members, err := strictjson.Object(raw)
	if err != nil {
		return s, err
	}
	if s.ID, err = required(members, "id"); err != nil {
		return s, err
	}
	if strings.HasPrefix(s.ID, "#") {
		s.ID = d.ID + s.ID
	}
	if s.Type, err = readSet(members["type"]); err != nil || len(s.Type) == 0 {
		return s, holdfast.Errorf(holdfast.ErrInvalid, "", "a service has a type, which is a string or several")
	}
	endpoint := members["serviceEndpoint"]
	if endpoint == nil || strings.IndexByte(`"{[`, endpoint[0]) < 0 {
		return s, holdfast.Errorf(holdfast.ErrInvalid, "", "a service has an endpoint: a string, an object, or several")
	}
	s.Endpoint = endpoint
	if context := members["@context"]; context != nil && context[0] == '"' {
		s.Context, err = strictjson.String(context)
	}
	return s, err
}
