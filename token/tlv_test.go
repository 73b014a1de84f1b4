package token

import (
	"bytes"
	"testing"

	"holdfast"
)

func TestSecretState(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		want   secretState
	}{
		"factory PIN":    {[]byte{0x01, 1, 0xFF, 0x05, 1, 1, 0x06, 2, 3, 2}, secretState{0xFF, Yes, 3, 2}},
		"changed key":    {[]byte{0x01, 1, 0x0A, 0x02, 2, 0, 1, 0x05, 1, 0}, secretState{0x0A, No, -1, -1}},
		"nothing":        {nil, secretState{0, Unknown, -1, -1}},
		"odd lengths":    {[]byte{0x05, 2, 1, 1, 0x06, 1, 3}, secretState{0, Unknown, -1, -1}},
		"length too big": {[]byte{0x05, 0x82, 0xFF, 0xFF, 1}, secretState{0, Unknown, -1, -1}},
	} {
		if got := parseSecretState(c.answer); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func FuzzTLV(f *testing.F) {
	f.Add([]byte{0x53, 0x82, 0x00, 0x04, 0x70, 0x81, 0x01, 0xAA})
	f.Add([]byte{0x01, 1, 0xFF, 0x05, 1, 1, 0x06, 2, 3, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		used := 0
		for _, value := range tlvs(b) {
			used += 2 + len(value)
			if used > len(b) {
				t.Fatalf("%x: more came out than went in", b)
			}
		}
		if s := parseSecretState(b); s.total < holdfast.RetriesUnknown || s.total > 255 {
			t.Fatalf("%x: %+v", b, s)
		}
		if value, ok := objectValue(b, 0x53); ok && !bytes.Contains(b, value) {
			t.Fatal("a value from nowhere")
		}
	})
}
