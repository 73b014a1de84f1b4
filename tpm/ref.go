package tpm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

// A ref is "tpm:handle=0x81008000;serial=…" for a resident key, where the serial is that of the TPM and may be left out when
// a key is looked for, and "tpm:name=…" for a wrapped one, where name is the TPM's Name of the object in hexadecimal: a
// digest of its public area, which no other key has.
type parsedRef struct {
	handle uint32 // 0 for a wrapped key
	name   string // hexadecimal
	serial string
}

const refScheme = "tpm:"

// parseRef reads a ref. It returns ErrInvalid for what is none.
func parseRef(ref holdfast.Ref) (parsedRef, error) {
	var p parsedRef
	text, ok := strings.CutPrefix(string(ref), refScheme)
	if !ok || text == "" {
		return p, invalidRef(ref, "it is of another backend or empty")
	}
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		var field *string
		switch name {
		case "handle":
			handle, err := parseHandle(value)
			if err != nil || p.handle != 0 {
				return p, invalidRef(ref, "its handle is not one persistent handle such as 0x81008000")
			}
			p.handle = handle
			continue
		case "name":
			field = &p.name
		case "serial":
			field = &p.serial
		default:
			return p, invalidRef(ref, fmt.Sprintf("%q is none of handle, name and serial", name))
		}
		if *field != "" || value == "" || strings.Trim(value, "0123456789abcdef") != "" {
			return p, invalidRef(ref, name+" is not one number in lower-case hexadecimal")
		}
		*field = value
	}
	if (p.handle == 0) == (p.name == "") || p.name != "" && p.serial != "" {
		return p, invalidRef(ref, "it has to have either a handle or a name")
	}
	return p, nil
}

func invalidRef(ref holdfast.Ref, why string) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", "%q names no key of a TPM: %s", ref, why)
}

// parseHandle reads a persistent handle: 0x and eight hexadecimal digits.
func parseHandle(text string) (uint32, error) {
	digits, ok := strings.CutPrefix(text, "0x")
	if !ok || len(digits) != 8 {
		return 0, fmt.Errorf("%q is not 0x and eight hexadecimal digits", text)
	}
	handle, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return 0, err
	}
	if handle>>24 != persistentType {
		return 0, fmt.Errorf("%q is no persistent handle (0x81……)", text)
	}
	return uint32(handle), nil
}

// residentRef returns the ref of the key at a persistent handle of the TPM with the given serial.
func residentRef(handle uint32, serial string) holdfast.Ref {
	ref := fmt.Sprintf("%shandle=0x%08x", refScheme, handle)
	if serial != "" {
		ref += ";serial=" + serial
	}
	return holdfast.Ref(ref)
}

// wrappedRef returns the ref of the wrapped key with the given Name.
func wrappedRef(name tpm2.TPM2BName) holdfast.Ref {
	return holdfast.Ref(fmt.Sprintf("%sname=%x", refScheme, name.Buffer))
}
