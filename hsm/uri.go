package hsm

import (
	"encoding/hex"
	"slices"
	"strings"

	"holdfast"
)

// uri is a parsed PKCS#11 URI (RFC 7512): its path attributes, percent-decoded. Query attributes say where to find
// modules and PINs; they are configuration and have no place in a ref.
type uri map[string]string

// pathAttributes lists the path attributes of RFC 7512, section 2.3.
var pathAttributes = [...]string{
	"token", "manufacturer", "serial", "model", "library-manufacturer", "library-version", "library-description",
	"object", "type", "id", "slot-description", "slot-manufacturer", "slot-id",
}

// objectTypes lists the values of the path attribute "type".
var objectTypes = [...]string{"public", "private", "cert", "secret-key", "data"}

const uriScheme = "pkcs11:"

// parseURI parses a PKCS#11 URI. It returns ErrInvalid for what is none, for attributes it does not know (ignoring one
// could name another key than was meant), for duplicates, and for all query attributes, pin-value first among them.
func parseURI(s string) (uri, error) {
	if len(s) < len(uriScheme) || !strings.EqualFold(s[:len(uriScheme)], uriScheme) {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the ref is not a %s URI (RFC 7512)", uriScheme)
	}
	path, query, found := strings.Cut(s[len(uriScheme):], "?")
	if found {
		name, _, _ := strings.Cut(query, "=")
		if strings.Contains(query, "pin-value") {
			name = "pin-value" // named without its value: errors are logged
		}
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
			"a ref has no query attributes such as %q: modules and PINs belong in the configuration", clip(name))
	}
	u := uri{}
	if path == "" {
		return u, nil
	}
	for part := range strings.SplitSeq(path, ";") {
		name, value, found := strings.Cut(part, "=")
		if name == "pin-value" || name == "pin-source" {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "a ref carries no PIN: leave out %s", name)
		}
		if !found || !slices.Contains(pathAttributes[:], name) {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
				"unknown attribute %q in the ref: RFC 7512 has %s", clip(name), strings.Join(pathAttributes[:], ", "))
		}
		if _, twice := u[name]; twice {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the ref has the attribute %s twice", name)
		}
		decoded, ok := percentDecode(value)
		if !ok {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
				"the value of %s in the ref is not percent-encoded as RFC 7512 wants", name)
		}
		u[name] = decoded
	}
	if t, ok := u["type"]; ok && !slices.Contains(objectTypes[:], t) {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
			"unknown object type %q in the ref: RFC 7512 has %s", clip(t), strings.Join(objectTypes[:], ", "))
	}
	return u, nil
}

// clip shortens what goes into an error message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// namesObject reports whether u has an attribute that selects objects.
func (u uri) namesObject() bool {
	_, id := u["id"]
	_, label := u["object"]
	return id || label
}

// ref returns u in canonical form: attributes in the order of pathAttributes, encoded as little as RFC 7512 allows,
// except id, where every byte is encoded.
func (u uri) ref() holdfast.Ref {
	var b strings.Builder
	b.WriteString(uriScheme)
	first := true
	for _, name := range pathAttributes {
		value, ok := u[name]
		if !ok {
			continue
		}
		if !first {
			b.WriteByte(';')
		}
		first = false
		b.WriteString(name)
		b.WriteByte('=')
		percentEncode(&b, value, name == "id")
	}
	return holdfast.Ref(b.String())
}

// plainInPath reports whether c stands for itself in a path attribute: pk11-pchar of RFC 7512, section 2.3, without '%'.
func plainInPath(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("-._~:[]@!$'()*+,=&", c) >= 0
}

func percentEncode(b *strings.Builder, s string, all bool) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if !all && plainInPath(c) {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', digits[c>>4], digits[c&15]})
	}
}

func percentDecode(s string) (string, bool) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%':
			if i+2 >= len(s) {
				return "", false
			}
			c, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", false
			}
			out = append(out, c[0])
			i += 2
		case plainInPath(s[i]):
			out = append(out, s[i])
		default:
			return "", false
		}
	}
	return string(out), true
}
