package token

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"holdfast"
)

// keyID identifies a key: KeySpec.ID of those Holdfast made, the first half of the SHA-256 of the SubjectPublicKeyInfo
// of the others.
type keyID [16]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// address is a parsed ref. Absent parts are zero; a canonical ref has them all.
type address struct {
	serial uint32
	place  string
	id     keyID

	hasSerial, hasID bool
}

// canonical returns the one ref of a key: piv:serial=13370000;slot=9c;id=000102030405060708090a0b0c0d0e0f.
func canonical(serial uint32, place string, id keyID) holdfast.Ref {
	return holdfast.Ref(fmt.Sprintf("piv:serial=%d;slot=%s;id=%s", serial, place, id))
}

// parseRef parses a ref. Attributes may come in any order and may be left out, but each only once and one of slot and
// id must be there.
func parseRef(ref holdfast.Ref) (address, error) {
	var a address
	attributes, ok := strings.CutPrefix(string(ref), Kind+":")
	if !ok {
		return a, invalidRef(ref, "it does not begin with piv:")
	}
	for attribute := range strings.SplitSeq(attributes, ";") {
		name, value, ok := strings.Cut(attribute, "=")
		if !ok {
			return a, invalidRef(ref, "an attribute has the form name=value")
		}
		if err := a.set(name, value); err != nil {
			return a, invalidRef(ref, err.Error())
		}
	}
	if a.place == "" && !a.hasID {
		return a, invalidRef(ref, "it needs a slot or an id")
	}
	return a, nil
}

func (a *address) set(name, value string) error {
	switch name {
	case "serial":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || a.hasSerial || strconv.FormatUint(n, 10) != value {
			return fmt.Errorf("the serial number is one decimal number, once")
		}
		a.serial, a.hasSerial = uint32(n), true
	case "slot":
		place, ok := parsePlace(value)
		if !ok || a.place != "" {
			return fmt.Errorf("the slot is one of %s, once", placesText)
		}
		a.place = place
	case "id":
		id, err := hex.DecodeString(value)
		if err != nil || len(id) != len(a.id) || a.hasID {
			return fmt.Errorf("the id is %d hexadecimal digits, once", 2*len(a.id))
		}
		a.id, a.hasID = keyID(id), true
	default:
		return fmt.Errorf("%q is none of serial, slot, id", name)
	}
	return nil
}

func invalidRef(ref holdfast.Ref, why string) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", "%q names no key on a PIV card: %s", ref, why)
}

// matches reports whether a names the key with these parts.
func (a address) matches(serial uint32, place string, id keyID) bool {
	return (!a.hasSerial || a.serial == serial) && (a.place == "" || a.place == place) && (!a.hasID || a.id == id)
}

// placesText is how errors name the slots.
const placesText = "9a, 9c, 9d, 9e, 82 to 95"

// allPlaces lists the slots for keys (SP 800-73-4, part 1, table 4b): first the retired key management slots, which is
// the order in which a free one is chosen, then the four that other PIV programs give a meaning.
func allPlaces() []string {
	list := make([]string, 0, 24)
	for n := 0x82; n <= 0x95; n++ {
		list = append(list, strconv.FormatInt(int64(n), 16))
	}
	return append(list, "9a", "9c", "9e", "9d")
}

// parsePlace returns the slot that s names, in lower case.
func parsePlace(s string) (string, bool) {
	s = strings.ToLower(s)
	n, err := strconv.ParseUint(s, 16, 8)
	if err != nil || len(s) != 2 {
		return "", false
	}
	return s, n >= 0x82 && n <= 0x95 || n == 0x9a || n == 0x9c || n == 0x9d || n == 0x9e
}
