package vpiv

import (
	"bytes"
	"testing"
)

func TestParseCommand(t *testing.T) {
	tests := []struct {
		name, apdu string
		data       string
		expected   int
		sw         status
	}{
		{"case 1", "00 FD 00 00", "", 256, swOK},
		{"case 2 short, all", "00 FD 00 00 00", "", 256, swOK},
		{"case 2 short", "00 FD 00 00 03", "", 3, swOK},
		{"case 3 short", "00 20 00 80 02 AA BB", "AA BB", 256, swOK},
		{"case 4 short", "00 20 00 80 02 AA BB 10", "AA BB", 16, swOK},
		{"case 2 extended", "00 FD 00 00 00 01 2C", "", 300, swOK},
		{"case 2 extended, all", "00 FD 00 00 00 00 00", "", 65536, swOK},
		{"case 3 extended", "00 20 00 80 00 00 02 AA BB", "AA BB", 256, swOK},
		{"case 4 extended", "00 20 00 80 00 00 02 AA BB 01 00", "AA BB", 256, swOK},
		{"empty", "", "", 0, swWrongLength},
		{"no header", "00 FD 00", "", 0, swWrongLength},
		{"data missing", "00 20 00 80 03 AA BB", "", 0, swWrongLength},
		{"data left over", "00 20 00 80 01 AA BB CC", "", 0, swWrongLength},
		{"extended length cut", "00 20 00 80 00 01", "", 0, swWrongLength},
		{"extended data missing", "00 20 00 80 00 00 03 AA BB", "", 0, swWrongLength},
		{"extended data left over", "00 20 00 80 00 00 01 AA BB", "", 0, swWrongLength},
		{"extended, no data", "00 20 00 80 00 00 00 AA BB CC", "", 0, swWrongLength},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cmd, sw := parseCommand(unhex(t, test.apdu))
			if sw != test.sw || cmd.expected != test.expected || !bytes.Equal(cmd.data, unhex(t, test.data)) {
				t.Errorf("got % X, expected %d, status %v", cmd.data, cmd.expected, sw)
			}
		})
	}
}

func TestClasses(t *testing.T) {
	h := newHost(t, Config{})
	h.want(swSecureMessage, "0C FD 00 00 00")
	h.want(swWrongCLA, "80 FD 00 00 00")
	h.want(swWrongCLA, "01 FD 00 00 00")
	h.want(swWrongINS, "00 01 00 00 00")
}

func TestNothingBeforeSelect(t *testing.T) {
	card, err := NewCard(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, card}
	h.want(swWrongINS, "00 FD 00 00 00")
	h.want(swNotFound, "00 A4 04 00 07 A0 00 00 00 04 10 10")
	h.want(swNotFound, "00 A4 04 00 04 A0 00 00 03") // shorter than the provider's identifier
	h.want(swWrongP1P2, "00 A4 00 00 02 3F 00")
	h.selectPIV()
	h.ok("00 FD 00 00 00")
	card.Reset()
	h.want(swWrongINS, "00 FD 00 00 00")
}

func TestChaining(t *testing.T) {
	h := newHost(t, Config{})
	h.ok("10 20 00 80 04 31 32 33 34")
	h.ok("00 20 00 80 04 35 36 FF FF")
	if !h.card.session.pinVerified {
		t.Error("a PIN in two pieces was not verified")
	}
	// A host that stops in the middle does not spoil the next command.
	h.ok("10 20 00 80 04 31 32 33 34")
	h.ok("00 FD 00 00 00")
	h.ok("00 20 00 80 08 31 32 33 34 35 36 FF FF")
	// And a chain without end is refused.
	piece := append([]byte{0x10, insPutData, 0x3F, 0xFF, 255}, make([]byte, 255)...)
	sw := swOK
	for i := 0; sw == swOK && i < 100; i++ {
		_, sw = h.raw(piece)
	}
	if sw != swWrongLength {
		t.Errorf("endless chain: %v", sw)
	}
}

func TestGetResponse(t *testing.T) {
	h := newHost(t, Config{})
	h.manage()
	value := bytes.Repeat([]byte("0123456789"), 60)
	h.do(insPutData, 0x3F, 0xFF, appendTLV(unhex(t, "5C 03 5F C1 05"), tagData, value))
	want := encodeTLV(tagData, value) // 604 bytes

	first, sw := h.raw(unhex(t, "00 CB 3F FF 05 5C 03 5F C1 05"))
	if sw != swMoreData || len(first) != 256 {
		t.Fatalf("first piece: %d bytes, status %v", len(first), sw)
	}
	second, sw := h.raw(unhex(t, "00 C0 00 00 80"))
	if sw != swMoreData|220 || len(second) != 128 {
		t.Fatalf("second piece: %d bytes, status %v", len(second), sw)
	}
	third, sw := h.raw(unhex(t, "00 C0 00 00 00"))
	if sw != swOK || !bytes.Equal(append(append(bytes.Clone(first), second...), third...), want) {
		t.Errorf("third piece: %d bytes, status %v", len(third), sw)
	}
	h.want(swConditions, "00 C0 00 00 00")

	all, sw := h.raw(unhex(t, "00 CB 3F FF 00 00 05 5C 03 5F C1 05 00 00"))
	if sw != swOK || !bytes.Equal(all, want) {
		t.Errorf("extended: %d bytes, status %v", len(all), sw)
	}
	h.raw(unhex(t, "00 CB 3F FF 05 5C 03 5F C1 05"))
	h.ok("00 FD 00 00 00")
	h.want(swConditions, "00 C0 00 00 00") // another command drops the rest
	h.want(swWrongP1P2, "00 C0 00 01 00")
}

func TestTLV(t *testing.T) {
	good := []struct {
		name, in string
		tag      uint32
		value    string
	}{
		{"one byte", "53 01 AA", 0x53, "AA"},
		{"two-byte tag", "7F 49 00", 0x7F49, ""},
		{"three-byte tag", "5F C1 05 01 AA", 0x5FC105, "AA"},
		{"long length", "53 81 02 AA BB", 0x53, "AA BB"},
		{"longer than needed", "53 83 00 00 01 AA", 0x53, "AA"},
	}
	for _, test := range good {
		t.Run(test.name, func(t *testing.T) {
			got, rest, ok := nextTLV(unhex(t, test.in))
			if !ok || got.tag != test.tag || !bytes.Equal(got.value, unhex(t, test.value)) || len(rest) != 0 {
				t.Errorf("got %X % X, rest % X, %v", got.tag, got.value, rest, ok)
			}
		})
	}
	for _, bad := range []string{"", "53", "53 02 AA", "53 80 AA", "53 84 00 00 00 01 AA", "53 82 01", "5F", "5F C1", "5F C1 85 01 AA"} {
		if _, _, ok := nextTLV(unhex(t, bad)); ok {
			t.Errorf("%q was taken for a data object", bad)
		}
	}
	for _, n := range []int{0, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000} {
		value := make([]byte, n)
		got, rest, ok := nextTLV(encodeTLV(0x5FC105, value))
		if !ok || len(rest) != 0 || got.tag != 0x5FC105 || len(got.value) != n {
			t.Errorf("%d bytes did not survive", n)
		}
	}
}
