package vpiv

import (
	"bytes"
	"encoding/hex"
	"io"
	"testing"
)

// seedAPDUs are commands as hosts send them.
var seedAPDUs = []string{
	"00A4040005A000000308", "00FD0000", "00F80000", "002000800831323334353637FF", "0020008000", "00F7009A", "00F7009B",
	"00870A9B047C028000", "00CB3FFF055C035FC105", "00CB3FFF035C017E", "00DB3FFF085C035FC1055301AA", "00F99A00",
	"0047009A0BAC09800111AA0102AB0101", "0087119A077C0582008101AA", "00FEE09A050701AAAA0101", "00F6829A", "00FA0303",
	"00FB0000", "00FFFFFF130A9B10", "002400801031323334353637383132333435363738", "002C00801031323334353637383132333435363738",
	"10DB3FFF055C035FC105", "00C0000000", "00CB3FFF0000055C035FC1050000", "0CFD0000", "00A4040008A000000527200101", "00011000",
}

func decode(f *testing.F, text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

func addAPDUs(f *testing.F) {
	for _, text := range seedAPDUs {
		f.Add(decode(f, text))
	}
}

// FuzzParseCommand checks that what is parsed is part of what was sent and lies within ISO/IEC 7816-4's bounds.
func FuzzParseCommand(f *testing.F) {
	addAPDUs(f)
	f.Fuzz(func(t *testing.T, apdu []byte) {
		cmd, sw := parseCommand(apdu)
		if sw != swOK {
			if sw != swWrongLength {
				t.Errorf("status %v", sw)
			}
			return
		}
		if cmd.expected < 1 || cmd.expected > 1<<16 || len(cmd.data) > 0 && !bytes.Contains(apdu[4:], cmd.data) {
			t.Errorf("expected %d, data % X of % X", cmd.expected, cmd.data, apdu)
		}
		if cmd.cla != apdu[0] || cmd.ins != apdu[1] || cmd.p1 != apdu[2] || cmd.p2 != apdu[3] {
			t.Error("another header")
		}
	})
}

// FuzzTLV checks that what is parsed comes back the same when it is encoded and parsed again.
func FuzzTLV(f *testing.F) {
	for _, seed := range []string{"5301AA", "7F4900", "5FC1050100", "538102AABB", "7C0482008100", "53820100", "5F", "5C035FC1055300"} {
		f.Add(decode(f, seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, ok := parseTLVs(data)
		if !ok {
			return
		}
		var encoded []byte
		for _, o := range objects {
			encoded = appendTLV(encoded, o.tag, o.value)
		}
		if len(encoded) > len(data) {
			t.Errorf("the encoding of % X is longer: % X", data, encoded)
		}
		again, ok := parseTLVs(encoded)
		if !ok || len(again) != len(objects) {
			t.Fatalf("% X does not parse again", encoded)
		}
		for i := range again {
			if again[i].tag != objects[i].tag || !bytes.Equal(again[i].value, objects[i].value) {
				t.Errorf("object %d changed", i)
			}
		}
	})
}

// FuzzTransmit sends a card, in any state of authentication, a sequence of commands of one length byte each, and checks
// that every answer has the form of one and that the card still works.
func FuzzTransmit(f *testing.F) {
	for flags := range byte(4) {
		var script []byte
		for _, text := range seedAPDUs {
			apdu := decode(f, text)
			f.Add(flags, append([]byte{byte(len(apdu))}, apdu...))
			script = append(append(script, byte(len(apdu))), apdu...)
		}
		f.Add(flags, script)
	}
	f.Fuzz(func(t *testing.T, flags byte, script []byte) {
		card, err := NewCard(Config{Serial: 1})
		if err != nil {
			t.Fatal(err)
		}
		card.Transmit([]byte{0, insSelect, 4, 0, 5, 0xA0, 0, 0, 3, 8})
		card.session.managed = flags&1 != 0
		card.session.pinVerified = flags&2 != 0
		for len(script) > 0 {
			n := min(int(script[0]), len(script)-1)
			apdu := script[1 : 1+n]
			script = script[1+n:]
			if slowGenerate(card, apdu) {
				continue
			}
			response := card.Transmit(apdu)
			if len(response) < 2 || response[len(response)-2] < 0x61 || response[len(response)-2] > 0x9F {
				t.Fatalf("% X was answered with % X", apdu, response)
			}
		}
		card.Reset()
		if got := card.Transmit([]byte{0, insSelect, 4, 0, 5, 0xA0, 0, 0, 3, 8}); !bytes.HasSuffix(got, []byte{0x90, 0}) {
			t.Fatalf("the card is broken: % X", got)
		}
	})
}

// slowGenerate reports whether a command may make an RSA key, which takes longer than fuzzing bears.
func slowGenerate(card *Card, apdu []byte) bool {
	if len(apdu) < 2 || apdu[1] != insGenerate {
		return false
	}
	all := append(bytes.Clone(card.session.chainData), apdu...)
	for _, algorithm := range []byte{algRSA1024, algRSA2048, algRSA3072, algRSA4096} {
		if bytes.IndexByte(all, algorithm) >= 0 {
			return true
		}
	}
	return false
}

// FuzzReadMessage checks the framing of the vpcd protocol: what is read is what would be written.
func FuzzReadMessage(f *testing.F) {
	for _, seed := range []string{"000104", "0005A0B0C0D0E0", "0000", "0003AA", "00", "", "000100000102"} {
		f.Add(decode(f, seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		in := bytes.NewReader(stream)
		var written bytes.Buffer
		for {
			message, err := readMessage(in)
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			if err := writeMessage(&written, message); err != nil {
				t.Fatal(err)
			}
		}
		// io.ReadFull says io.EOF between messages only, so nothing was lost.
		if !bytes.Equal(written.Bytes(), stream) {
			t.Errorf("read % X, wrote % X", stream, written.Bytes())
		}
	})
}

// FuzzLoad checks that a file is a card or an error.
func FuzzLoad(f *testing.F) {
	card, err := NewCard(Config{Serial: 1})
	if err != nil {
		f.Fatal(err)
	}
	good, err := encodeState(card.state)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := decodeState(data)
		if err != nil {
			return
		}
		if _, err := encodeState(state); err != nil {
			t.Errorf("a card that was loaded cannot be saved: %v", err)
		}
	})
}
