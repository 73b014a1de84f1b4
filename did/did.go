// Package did holds what all DID methods share: the syntax of DIDs and DID URLs, DID documents, resolution and its
// errors, and the canonical form of JSON that their signatures cover.
//
// It follows Decentralized Identifiers (DIDs) 1.0 and 1.1 and DID Resolution. Each method has a package of its own below
// this one (key, jwk, webvh); [Methods] joins them to one [Resolver]. Nothing here keeps keys or knows who does: creating
// takes public keys and functions that sign.
//
// Everything read here may come from an adversary. Texts are bounded, JSON has no duplicate names, and each identifier
// has one accepted spelling. Errors are *holdfast.Error; those of resolution carry a [Problem].
package did

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"holdfast"
)

// The longest texts that are looked at, in bytes. A did:jwk of an RSA key with 8192 bits has about 2000.
const (
	maxDID = 4 << 10
	maxURL = 8 << 10
)

// DID is a decentralized identifier (DID Core, section 3.1). The zero DID is not valid.
type DID struct {
	// Method is the method's name: lower case letters and digits.
	Method string

	// ID is the method-specific identifier, as it is written.
	ID string
}

// Parse returns the DID that s is. It returns ErrInvalid, as a [Problem] of type [InvalidDID], for anything else,
// a DID URL with path, query or fragment included.
func Parse(s string) (DID, error) {
	if len(s) > maxDID {
		return DID{}, Problemf(InvalidDID, "a DID has at most %d bytes, not %d", maxDID, len(s))
	}
	rest, ok := strings.CutPrefix(s, "did:")
	if !ok {
		return DID{}, Problemf(InvalidDID, "a DID starts with did:")
	}
	method, id, ok := strings.Cut(rest, ":")
	if !ok || method == "" || strings.ContainsFunc(method, func(r rune) bool { return !isMethodChar(r) }) {
		return DID{}, Problemf(InvalidDID, "after did: comes the method, in lower case letters and digits, and a colon")
	}
	if id == "" || strings.HasSuffix(id, ":") || !wellFormed(id, isIDChar) {
		return DID{}, Problemf(InvalidDID, "a DID's identifier is made of letters, digits, '.', '-', '_', ':' and %%XX")
	}
	return DID{Method: method, ID: id}, nil
}

// String returns the DID.
func (d DID) String() string { return "did:" + d.Method + ":" + d.ID }

func isMethodChar(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' }

func isLetterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isIDChar(c byte) bool { return isLetterOrDigit(c) || strings.IndexByte(".-_:", c) >= 0 }

// isPathChar covers pchar and '/' of RFC 3986, section 3.3; query and fragment have '?' in addition.
func isPathChar(c byte) bool {
	return isLetterOrDigit(c) || strings.IndexByte("-._~!$&'()*+,;=:@/", c) >= 0
}

func isQueryChar(c byte) bool { return isPathChar(c) || c == '?' }

// wellFormed reports whether s consists of allowed bytes and percent-encodings.
func wellFormed(s string, allowed func(byte) bool) bool {
	for i := 0; i < len(s); i++ {
		switch {
		case allowed(s[i]):
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		default:
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

// URL is a DID URL (DID Core, section 3.2). Its parts are as written, percent-encodings included.
type URL struct {
	// DID is the DID itself.
	DID DID

	// Path is empty or starts with '/'.
	Path string

	// Query is what follows '?', without it.
	Query string

	// Fragment is what follows '#', without it.
	Fragment string

	// forceQuery and forceFragment remember an empty query or fragment, for String.
	forceQuery, forceFragment bool
}

// ParseURL returns the DID URL that s is. A DID is a DID URL. Errors are [Problem] values of type [InvalidDIDURL], or
// [InvalidDID] when the DID in it is not valid.
func ParseURL(s string) (URL, error) {
	if len(s) > maxURL {
		return URL{}, Problemf(InvalidDIDURL, "a DID URL has at most %d bytes, not %d", maxURL, len(s))
	}
	var u URL
	rest, fragment, hasFragment := strings.Cut(s, "#")
	rest, query, hasQuery := strings.Cut(rest, "?")
	identifier := rest
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		identifier, u.Path = rest[:slash], rest[slash:]
	}
	var err error
	if u.DID, err = Parse(identifier); err != nil {
		return URL{}, err
	}
	if !wellFormed(u.Path, isPathChar) || !wellFormed(query, isQueryChar) || !wellFormed(fragment, isQueryChar) {
		return URL{}, Problemf(InvalidDIDURL, "path, query and fragment of a DID URL are written as in RFC 3986")
	}
	u.Query, u.Fragment = query, fragment
	u.forceQuery, u.forceFragment = hasQuery, hasFragment
	return u, nil
}

// String returns the DID URL as it was parsed.
func (u URL) String() string {
	s := u.DID.String() + u.Path
	if u.Query != "" || u.forceQuery {
		s += "?" + u.Query
	}
	if u.Fragment != "" || u.forceFragment {
		s += "#" + u.Fragment
	}
	return s
}

// ResolveOptions returns the options that the query's parameters versionId, versionTime and versionNumber ask for (DID
// Core, section 3.2.1, and did:webvh). Other parameters are for dereferencing and ignored. A parameter that occurs twice
// is refused, for two readers would take different ones.
func (u URL) ResolveOptions() (*ResolveOptions, error) {
	values, err := url.ParseQuery(strings.ReplaceAll(u.Query, "+", "%2B"))
	if err != nil {
		return nil, Problemf(InvalidDIDURL, "the query is not well-formed")
	}
	for _, name := range []string{"versionId", "versionTime", "versionNumber"} {
		if len(values[name]) > 1 {
			return nil, Problemf(InvalidDIDURL, "the parameter %s occurs more than once", name)
		}
	}
	options := &ResolveOptions{VersionID: values.Get("versionId")}
	if values.Has("versionTime") {
		if options.VersionTime, err = ParseTime(values.Get("versionTime")); err != nil {
			return nil, Problemf(InvalidOptions, "versionTime is a time like 2026-01-31T12:00:00Z")
		}
	}
	if values.Has("versionNumber") {
		text := values.Get("versionNumber")
		number, err := strconv.ParseUint(text, 10, 63)
		if err != nil || number == 0 || strconv.FormatUint(number, 10) != text {
			return nil, Problemf(InvalidOptions, "versionNumber is an integer from 1")
		}
		options.VersionNumber = number
	}
	return options, nil
}

// ParseTime reads a time in UTC as DID documents and logs write it: the profile of RFC 3339 with upper case T, an
// optional fraction of up to nine digits, and Z or +00:00. It returns ErrInvalid for anything else.
func ParseTime(s string) (time.Time, error) {
	text := s
	if base, ok := strings.CutSuffix(s, "+00:00"); ok {
		text = base + "Z"
	}
	if len(text) < len("2006-01-02T15:04:05Z") || len(text) > len("2006-01-02T15:04:05.999999999Z") || text[10] != 'T' ||
		strings.ContainsRune(text, ',') {
		return time.Time{}, timeError(s)
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !strings.HasSuffix(text, "Z") {
		return time.Time{}, timeError(s)
	}
	return t.UTC(), nil
}

func timeError(s string) error {
	if len(s) > 64 {
		s = s[:64]
	}
	return holdfast.Errorf(holdfast.ErrInvalid, "", "%q is not a time in UTC like 2026-01-31T12:00:00Z", s)
}
