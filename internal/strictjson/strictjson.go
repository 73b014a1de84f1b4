// Package strictjson reads JSON that decides about trust: keys, DID documents, logs.
//
// encoding/json takes the last of two members with one name, matches names whatever their case, replaces invalid UTF-8,
// and reads null as anything. Two programs that read such a text differently can be played off against each other, so
// [Check] accepts I-JSON (RFC 7493) only, and the accessors match names exactly and types strictly.
//
// The accessors expect text that Check has accepted. All errors are *holdfast.Error with ErrInvalid.
package strictjson

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"holdfast"
)

// MaxDepth is how deep arrays and objects may nest: no document here needs a third of it.
const MaxDepth = 32

// maxInteger is the largest integer that IEEE 754 doubles keep apart from its neighbours (RFC 7493, section 2.2).
const maxInteger = 1<<53 - 1

// Check returns nil when data is one JSON text (RFC 8259) without duplicate names, lone surrogates,
// invalid UTF-8, integers that a double does not keep apart from others, numbers beyond a double, or more than [MaxDepth]
// levels. Limits of size are the caller's.
func Check(data []byte) error {
	s := scanner{data: data}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.at != len(data) {
		return s.bad("something follows the JSON text")
	}
	return nil
}

// scanner walks over JSON. at is the offset of the next byte.
type scanner struct {
	data []byte
	at   int
}

func (s *scanner) bad(what string) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", "JSON, byte %d: %s", s.at, what)
}

func (s *scanner) peek() byte {
	if s.at < len(s.data) {
		return s.data[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	for _, literal := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.data[s.at:], []byte(literal)) {
			s.at += len(literal)
			return nil
		}
	}
	return s.bad("a value is expected")
}

func (s *scanner) enter(depth int) error {
	if depth >= MaxDepth {
		return s.bad("nested too deep")
	}
	s.at++
	s.space()
	return nil
}

func (s *scanner) object(depth int) error {
	if err := s.enter(depth); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.at++
		return nil
	}
	var names nameSet
	for {
		start := s.at
		name, err := s.text()
		if err != nil {
			return err
		}
		if !names.add(name) {
			s.at = start
			return s.bad("a name occurs twice in one object")
		}
		if s.space(); s.peek() != ':' {
			return s.bad("a colon is expected")
		}
		s.at++
		s.space()
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if more, err := s.next('}'); !more {
			return err
		}
	}
}

func (s *scanner) array(depth int) error {
	if err := s.enter(depth); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if more, err := s.next(']'); !more {
			return err
		}
	}
}

// next goes past a comma or past the end of an object or array, and says whether another element follows.
func (s *scanner) next(end byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.at++
		s.space()
		return true, nil
	case end:
		s.at++
		return false, nil
	default:
		return false, s.bad("a comma or an end is expected")
	}
}

// nameSet holds the names of one object. Most objects have few members; those that have many get a map.
type nameSet struct {
	few  []string
	many map[string]struct{}
}

func (n *nameSet) add(name string) (isNew bool) {
	if n.many != nil {
		_, has := n.many[name]
		n.many[name] = struct{}{}
		return !has
	}
	if slices.Contains(n.few, name) {
		return false
	}
	n.few = append(n.few, name)
	if len(n.few) > 16 {
		n.many = make(map[string]struct{}, 2*len(n.few))
		for _, other := range n.few {
			n.many[other] = struct{}{}
		}
	}
	return true
}

// text goes past a string and returns its value.
func (s *scanner) text() (string, error) {
	if s.peek() != '"' {
		return "", s.bad("a string is expected")
	}
	start := s.at
	s.at++
	escaped := false
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			token := s.data[start:s.at]
			if !escaped {
				return string(token[1 : len(token)-1]), nil
			}
			return unquote(token)
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return "", err
			}
		case c < ' ':
			return "", s.bad("a control character has to be escaped")
		case c < utf8.RuneSelf:
			s.at++
		default:
			r, size := utf8.DecodeRune(s.data[s.at:])
			if r == utf8.RuneError && size == 1 {
				return "", s.bad("this is not UTF-8")
			}
			s.at += size
		}
	}
	return "", s.bad("the string has no end")
}

// escape goes past an escape sequence; surrogates have to come in pairs.
func (s *scanner) escape() error {
	rest := s.data[s.at:]
	if len(rest) < 2 {
		return s.bad("the string has no end")
	}
	switch rest[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at += 2
		return nil
	case 'u':
	default:
		return s.bad("there is no such escape sequence")
	}
	unit, ok := hex4(rest)
	if !ok {
		return s.bad("\\u needs four hexadecimal digits")
	}
	switch {
	case unit < 0xd800 || unit > 0xdfff:
		s.at += 6
		return nil
	case unit < 0xdc00 && len(rest) >= 12:
		if low, ok := hex4(rest[6:]); ok && low >= 0xdc00 && low <= 0xdfff {
			s.at += 12
			return nil
		}
	}
	return s.bad("a surrogate stands alone")
}

// hex4 reads \uXXXX at the start of b.
func hex4(b []byte) (uint64, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return 0, false
		}
	}
	unit, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return unit, err == nil
}

func (s *scanner) number() error {
	start := s.at
	if s.peek() == '-' {
		s.at++
	}
	integer := true
	switch {
	case s.peek() == '0':
		s.at++
	case s.digits() == 0:
		return s.bad("a digit is expected")
	}
	if s.peek() == '.' {
		integer = false
		s.at++
		if s.digits() == 0 {
			return s.bad("a digit is expected")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		integer = false
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if s.digits() == 0 {
			return s.bad("a digit is expected")
		}
	}
	literal := string(s.data[start:s.at])
	value, err := strconv.ParseFloat(literal, 64)
	// Two integers that become one double would have one hash; of those, the one that JCS writes is accepted.
	if err != nil || integer && math.Abs(value) > maxInteger && strconv.FormatFloat(value, 'f', -1, 64) != literal {
		s.at = start
		return s.bad("the number is out of range")
	}
	return nil
}

func (s *scanner) digits() (n int) {
	for '0' <= s.peek() && s.peek() <= '9' {
		s.at++
		n++
	}
	return n
}

func unquote(token []byte) (string, error) {
	var text string
	if err := json.Unmarshal(token, &text); err != nil {
		return "", holdfast.Errorf(holdfast.ErrInvalid, "", "JSON string: %w", err)
	}
	return text, nil
}
