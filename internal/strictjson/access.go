package strictjson

import (
	"encoding/json"
	"strconv"

	"holdfast"
)

func wrong(what string) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", "JSON: %s is expected", what)
}

// Member is one member of an object.
type Member struct {
	Name  string
	Value json.RawMessage
}

// Members returns the members of an object in their order. The values are parts of data, without outer white space.
func Members(data []byte) ([]Member, error) {
	s := scanner{data: data}
	if s.space(); s.peek() != '{' {
		return nil, wrong("an object")
	}
	s.at++
	members := []Member{}
	if s.space(); s.peek() == '}' {
		return members, nil
	}
	for {
		name, err := s.text()
		if err != nil {
			return nil, err
		}
		s.space()
		s.at++ // the colon
		s.space()
		start := s.at
		if err := s.skip(); err != nil {
			return nil, err
		}
		members = append(members, Member{name, data[start:s.at]})
		if more, err := s.next('}'); !more {
			return members, err
		}
	}
}

// Object returns the members of an object by their exact names. The values are parts of data, without outer white space.
func Object(data []byte) (map[string]json.RawMessage, error) {
	list, err := Members(data)
	if err != nil {
		return nil, err
	}
	members := make(map[string]json.RawMessage, len(list))
	for _, m := range list {
		members[m.Name] = m.Value
	}
	return members, nil
}

// Array returns the elements of an array. They are parts of data, without outer white space.
func Array(data []byte) ([]json.RawMessage, error) {
	s := scanner{data: data}
	if s.space(); s.peek() != '[' {
		return nil, wrong("an array")
	}
	s.at++
	elements := []json.RawMessage{}
	if s.space(); s.peek() == ']' {
		return elements, nil
	}
	for {
		start := s.at
		if err := s.skip(); err != nil {
			return nil, err
		}
		elements = append(elements, data[start:s.at])
		if more, err := s.next(']'); !more {
			return elements, err
		}
	}
}

// skip goes past a value that Check has accepted, without looking into it twice.
func (s *scanner) skip() error {
	start, depth := s.at, 0
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case '"':
			s.skipText()
			if depth == 0 {
				return nil
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return s.skipped(start)
			}
			if depth--; depth == 0 {
				s.at++
				return nil
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return s.skipped(start)
			}
		}
		s.at++
	}
	if depth != 0 {
		return s.bad("the value has no end")
	}
	return s.skipped(start)
}

func (s *scanner) skipped(start int) error {
	if s.at == start {
		return s.bad("a value is expected")
	}
	return nil
}

func (s *scanner) skipText() {
	for s.at++; s.at < len(s.data); s.at++ {
		switch s.data[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return
		}
	}
}

// String returns the value of a string.
func String(data []byte) (string, error) {
	s := scanner{data: data}
	if s.space(); s.peek() != '"' {
		return "", wrong("a string")
	}
	return s.text()
}

// Strings returns the values of an array of strings.
func Strings(data []byte) ([]string, error) {
	elements, err := Array(data)
	if err != nil {
		return nil, err
	}
	list := make([]string, len(elements))
	for i, element := range elements {
		if list[i], err = String(element); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Bool returns true or false.
func Bool(data []byte) (bool, error) {
	switch string(data) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, wrong("true or false")
	}
}

// Uint returns an integer from 0 to limit that is written without fraction and exponent.
func Uint(data []byte, limit uint64) (uint64, error) {
	n, err := strconv.ParseUint(string(data), 10, 64)
	if err != nil || n > limit {
		return 0, wrong("an integer from 0 to " + strconv.FormatUint(limit, 10))
	}
	return n, nil
}

// IsNull reports whether data is the literal null.
func IsNull(data []byte) bool { return string(data) == "null" }
