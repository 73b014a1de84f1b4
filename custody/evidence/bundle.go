package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast"
	piv "holdfast/token/attestation"
	tpm "holdfast/tpm/attestation"
)

// kinds are the kinds of evidence by the kind of device that gives it.
var kinds = map[string]string{"pkcs11": attributesKind, "tpm2": tpm.Kind, "piv": piv.Kind}

// Bounds of a bundle that is looked at.
const (
	maxFiles = 32
	maxFile  = 1 << 20
)

// Build returns the bundle for what s claims, with Format filled in. attest gets the device's evidence for a challenge.
func Build(s Statement, attest func(challenge []byte) (*holdfast.Evidence, error)) (map[string][]byte, error) {
	s.Format = Format
	text, err := s.encode()
	if err != nil {
		return nil, err
	}
	e, err := attest(Challenge(text))
	if err != nil {
		return nil, err
	}
	if kind, known := kinds[s.Device.Kind]; e == nil || known && e.Kind != kind {
		return nil, holdfast.Errorf(holdfast.ErrInternal, "attest",
			"the evidence is not of the kind that %s devices give", s.Device.Kind)
	}
	files := map[string][]byte{FileStatement: text}
	for name, data := range e.Files {
		if _, taken := files[name]; taken || name == FileSums || !plain(name) {
			return nil, holdfast.Errorf(holdfast.ErrInternal, "attest", "the device's evidence has a file called %q",
				name)
		}
		files[name] = data
	}
	files[FileSums] = sums(files)
	return files, nil
}

// plain reports whether name is the name of a file on any system, and of nothing else.
func plain(name string) bool {
	return name != "" && len(name) <= 64 && name[0] != '.' && name[0] != '-' && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' ||
			r == '_')
	})
}

// sums returns the digests of all files but FileSums as the command sha256sum writes them, in the order of the names.
func sums(files map[string][]byte) []byte {
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != FileSums {
			fmt.Fprintf(&text, "%s\n", sumLine(name, files[name]))
		}
	}
	return text.Bytes()
}

func sumLine(name string, data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]) + "  " + name
}

// checkSums checks every file against FileSums and names the one that does not fit.
func checkSums(files map[string][]byte) error {
	text, ok := files[FileSums]
	if !ok {
		return broken(FileSums, "the file is missing")
	}
	if bytes.Equal(text, sums(files)) {
		return nil
	}
	lines := strings.Split(string(text), "\n")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != FileSums && !slices.Contains(lines, sumLine(name, files[name])) {
			return broken(name, "it is not the file that %s lists", FileSums)
		}
	}
	return broken(FileSums, "it is not in the one form it has, or lists files that are missing")
}
