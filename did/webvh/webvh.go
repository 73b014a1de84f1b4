// Package webvh is the DID method did:webvh, version 1.0: a log of a DID's versions that anybody can verify, published at
// the web address the DID names.
//
// [Create] makes the first entry of a log, [Next] the following ones; [Verify] reads a log; [Resolver] fetches and reads
// it. Control of the DID is an Ed25519 key that may live in a device: its signature is asked for through a function.
//
// What the method gives: whoever serves the log cannot change its past, nor add to it without a key that the log itself
// authorizes. What it does not give: the server can withhold the end of the log, and holders of the update keys can write
// two different continuations; witnesses and watchers are there to notice. Where the text of the specification and its
// test suite leave a choice, the stricter reading is taken; docs/did.md lists them.
package webvh

import (
	"crypto/sha256"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/did"

	"github.com/mr-tron/base58"
	"golang.org/x/net/idna"
)

// Method is the method's name.
const Method = "webvh"

const (
	prefix      = "did:" + Method + ":"
	specVersion = "did:webvh:1.0" // of the parameter "method"
	placeholder = "{SCID}"
	scidLength  = 46 // base58btc of a multihash of 34 bytes that starts with 12 20
	maxSegments = 32
)

// Location is where a did:webvh points: its parts after decoding.
type Location struct {
	// SCID is the self-certifying identifier, the hash of the first log entry.
	SCID string

	// Host is the domain name in lower case ASCII, internationalized labels as xn--.
	Host string

	// Port is the TCP port, 0 for none in the DID.
	Port uint16

	// Path is the decoded path segments.
	Path []string
}

// Parse returns where a did:webvh points. It refuses, with a did.Problem of type INVALID_DID, a SCID that is not a
// SHA-256 multihash, hosts that are not domain names of at least two labels (IP addresses in any spelling), and path
// segments that a web server could take for something else: empty, "." or "..", with a slash, a backslash, a control
// character, or percent-encoded twice.
func Parse(s string) (*Location, error) {
	parsed, err := did.Parse(s)
	if err != nil {
		return nil, err
	}
	if parsed.Method != Method {
		return nil, did.Problemf(did.InvalidDID, "a DID of method %q is not a did:webvh", parsed.Method)
	}
	parts := strings.Split(parsed.ID, ":")
	if len(parts) < 2 {
		return nil, did.Problemf(did.InvalidDID, "a did:webvh has a SCID and a domain name")
	}
	if !isMultihash(parts[0]) {
		return nil, did.Problemf(did.InvalidDID, "the SCID is not a SHA-256 multihash in base58btc")
	}
	location, err := parseLocation(parts[1], parts[2:])
	if err != nil {
		return nil, err
	}
	location.SCID = parts[0]
	return location, nil
}

// parseLocation reads the host and path segments of a DID, with their percent-encoding.
func parseLocation(authority string, segments []string) (*Location, error) {
	if len(segments) > maxSegments {
		return nil, did.Problemf(did.InvalidDID, "the path has more than %d segments", maxSegments)
	}
	location := &Location{}
	var err error
	host := authority
	if i := portSeparator(authority); i >= 0 {
		host = authority[:i]
		if location.Port, err = parsePort(authority[i+3:]); err != nil {
			return nil, err
		}
	}
	// Decoded once; a % that is left over is refused below with everything else that is no letter, digit or hyphen.
	if host, err = url.PathUnescape(host); err != nil {
		return nil, did.Problemf(did.InvalidDID, "the domain name is not well-formed")
	}
	if location.Host, err = normalizeHost(host); err != nil {
		return nil, err
	}
	for _, segment := range segments {
		decoded, err := url.PathUnescape(segment)
		if err != nil || !allowedSegment(decoded) {
			return nil, did.Problemf(did.InvalidDID, "the path segment %.80q is not allowed", segment)
		}
		location.Path = append(location.Path, decoded)
	}
	return location, nil
}

// portSeparator returns the index of the last %3A, -1 if there is none.
func portSeparator(authority string) int {
	return max(strings.LastIndex(authority, "%3A"), strings.LastIndex(authority, "%3a"))
}

func parsePort(text string) (uint16, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != text {
		return 0, did.Problemf(did.InvalidDID, "the port is not a number from 1 to 65535")
	}
	return uint16(port), nil
}

// normalizeHost returns the ASCII form of a domain name. The profile for lookup maps full-width digits and ideographic
// full stops to ASCII, so that what looks like an address is one when it is checked.
func normalizeHost(host string) (string, error) {
	if !utf8.ValidString(host) {
		return "", did.Problemf(did.InvalidDID, "the domain name is not UTF-8")
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		return "", did.Problemf(did.InvalidDID, "%.80q is not a domain name", host)
	}
	labels := strings.Split(ascii, ".")
	if len(ascii) > 253 || len(labels) < 2 {
		return "", did.Problemf(did.InvalidDID, "%.80q is not a domain name of at least two labels", host)
	}
	for _, label := range labels {
		if !isLabel(label) {
			return "", did.Problemf(did.InvalidDID, "%.80q is not a domain name", host)
		}
	}
	last := labels[len(labels)-1]
	// inet_aton takes decimal, octal and hexadecimal numbers, one to four of them; browsers decide by the last label.
	if _, err := netip.ParseAddr(ascii); err == nil || isNumber(last) {
		return "", did.Problemf(did.InvalidDID, "the host of a did:webvh is a domain name, not an IP address")
	}
	return ascii, nil
}

func isLabel(label string) bool {
	return label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
		!strings.ContainsFunc(label, func(r rune) bool {
			return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
		})
}

// isNumber reports whether label is all digits or starts like a hexadecimal number; no top-level domain does either.
func isNumber(label string) bool {
	return strings.HasPrefix(label, "0x") ||
		!strings.ContainsFunc(label, func(r rune) bool { return r < '0' || r > '9' })
}

// allowedSegment says whether a decoded path segment stays one segment on every web server.
func allowedSegment(s string) bool {
	return s != "" && s != "." && s != ".." && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r == '/' || r == '\\' || r == '%' || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
		})
}

// DID returns the DID of the location; Host and Path are those of Parse.
func (l *Location) DID() string { return prefix + l.SCID + ":" + l.suffix() }

// suffix returns what follows the SCID in the DID, and did:web: in the parallel did:web.
func (l *Location) suffix() string {
	var s strings.Builder
	s.WriteString(l.Host)
	if l.Port != 0 {
		s.WriteString("%3A" + strconv.Itoa(int(l.Port)))
	}
	for _, segment := range l.Path {
		s.WriteString(":" + encodeSegment(segment))
	}
	return s.String()
}

// encodeSegment writes a path segment with the characters that a DID may have.
func encodeSegment(segment string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
	}
	return b.String()
}

// base returns the URL of the folder, ending in '/'.
func (l *Location) base() string {
	var u strings.Builder
	u.WriteString("https://" + l.Host)
	if l.Port != 0 {
		u.WriteString(":" + strconv.Itoa(int(l.Port)))
	}
	for _, segment := range l.Path {
		u.WriteString("/" + encodeSegment(segment))
	}
	return u.String() + "/"
}

func (l *Location) file(name string) string {
	if len(l.Path) == 0 {
		return l.base() + ".well-known/" + name
	}
	return l.base() + name
}

// LogURL returns where the log is: https://host[:port]/path/did.jsonl, with /.well-known/ for a DID without path.
func (l *Location) LogURL() string { return l.file("did.jsonl") }

// WitnessURL returns where the proofs of witnesses are, beside the log.
func (l *Location) WitnessURL() string { return l.file("did-witness.json") }

// WebURL returns where the document of the parallel did:web is, beside the log.
func (l *Location) WebURL() string { return l.file("did.json") }

// WebDID returns the did:web with the same location.
func (l *Location) WebDID() string { return "did:web:" + l.suffix() }

// equal reports whether two locations are the same DID, however it is written.
func (l *Location) equal(other *Location) bool {
	return l.SCID == other.SCID && l.Host == other.Host && l.Port == other.Port && slices.Equal(l.Path, other.Path)
}

// multihash returns base58btc of the SHA-256 multihash of data, without multibase prefix.
func multihash(data []byte) string {
	sum := sha256.Sum256(data)
	return base58.Encode(append([]byte{0x12, sha256.Size}, sum[:]...))
}

func isMultihash(s string) bool {
	if len(s) != scidLength {
		return false
	}
	raw, err := base58.Decode(s)
	return err == nil && len(raw) == 2+sha256.Size && raw[0] == 0x12 && raw[1] == sha256.Size
}

// KeyHash returns what commits to an update key in advance, for the parameter nextKeyHashes: base58btc of the SHA-256
// multihash of the multikey's text.
func KeyHash(multikey string) string { return multihash([]byte(multikey)) }
