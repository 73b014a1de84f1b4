package vpiv

import (
	"strings"
	"testing"
)

func TestVerify(t *testing.T) {
	h := newHost(t, Config{PIN: "246802"})
	h.want(swTriesLeft|3, "00 20 00 80 00")
	h.want(swTriesLeft|2, "00 20 00 80 08 31 32 33 34 35 36 FF FF")
	h.want(swTriesLeft|2, "00 20 00 80")
	h.want(swWrongData, "00 20 00 80 06 32 34 36 38 30 32") // not padded: no try
	h.want(swTriesLeft|2, "00 20 00 80 00")
	h.ok("00 20 00 80 08 32 34 36 38 30 32 FF FF")
	h.ok("00 20 00 80 00")
	h.ok("00 20 FF 80")
	h.want(swTriesLeft|3, "00 20 00 80 00") // logged out, all tries back
	h.want(swNoReference, "00 20 00 96 02 03 00")
	h.want(swNoReference, "00 20 00 00 08 32 34 36 38 30 32 FF FF")
	h.want(swWrongP1P2, "00 20 01 80 00")
	for _, left := range []status{2, 1, 0} {
		if sw := h.verify("000000"); sw != swTriesLeft|left {
			t.Fatalf("wrong PIN: %v, want %d tries left", sw, left)
		}
	}
	h.want(swBlocked, "00 20 00 80 00")
	if sw := h.verify("246802"); sw != swBlocked {
		t.Errorf("right PIN on a blocked card: %v", sw)
	}
	if h.card.PINTries() != 0 || h.card.PUKTries() != 3 {
		t.Errorf("tries: %d and %d", h.card.PINTries(), h.card.PUKTries())
	}
}

func TestVerifiedStateEnds(t *testing.T) {
	h := newHost(t, Config{})
	for name, end := range map[string]func(){
		"reset":       h.card.Reset,
		"select":      func() { h.selectPIV() },
		"other":       func() { h.ok("00 A4 04 00 08 A0 00 00 05 27 20 01 01") },
		"wrong PIN":   func() { h.verify("000000") },
		"wrong digit": func() { h.send(insChangeReference, 0, refPIN, pairs("000000", "111111")) },
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.selectPIV()
			if sw := h.verify(DefaultPIN); sw != swOK {
				t.Fatal(sw)
			}
			end()
			h.selectPIV()
			if _, sw := h.send(insVerify, 0, refPIN, nil); sw&0xFFF0 != swTriesLeft {
				t.Errorf("still verified: %v", sw)
			}
		})
	}
}

func TestUnknownApplicationKeepsState(t *testing.T) {
	h := newHost(t, Config{})
	h.verify(DefaultPIN)
	h.want(swNotFound, "00 A4 04 00 06 A0 00 00 03 97 42")
	h.ok("00 20 00 80 00")
}

func TestChangeReference(t *testing.T) {
	h := newHost(t, Config{})
	change := func(ref byte, from, to string) status {
		_, sw := h.send(insChangeReference, 0, ref, pairs(from, to))
		return sw
	}
	if sw := change(refPIN, "000000", "654321"); sw != swTriesLeft|2 {
		t.Errorf("wrong PIN: %v", sw)
	}
	if sw := change(refPIN, DefaultPIN, "12345"); sw != swWrongData || h.card.PINTries() != 2 {
		t.Errorf("short new PIN: %v, %d tries", sw, h.card.PINTries())
	}
	if sw := change(refPIN, DefaultPIN, "654321"); sw != swOK || h.verify("654321") != swOK {
		t.Errorf("right PIN: %v", sw)
	}
	if sw := change(refPUK, DefaultPUK, "87654321"); sw != swOK {
		t.Errorf("PUK: %v", sw)
	}
	if sw := change(refPUK, DefaultPUK, "87654321"); sw != swTriesLeft|2 {
		t.Errorf("old PUK: %v", sw)
	}
	if sw := change(0x9B, DefaultPUK, "87654321"); sw != swNoReference {
		t.Errorf("no such reference: %v", sw)
	}
	h.want(swWrongData, "00 24 00 80 04 31 32 33 34")
	h.want(swWrongP1P2, "00 24 01 80 00")
}

func TestUnblock(t *testing.T) {
	h := newHost(t, Config{})
	for h.card.PINTries() > 0 {
		h.verify("000000")
	}
	unblock := func(puk, pin string) status {
		_, sw := h.send(insResetRetry, 0, refPIN, pairs(puk, pin))
		return sw
	}
	if sw := unblock("00000000", "111111"); sw != swTriesLeft|2 {
		t.Errorf("wrong PUK: %v", sw)
	}
	if sw := unblock(DefaultPUK, "111111"); sw != swOK {
		t.Errorf("right PUK: %v", sw)
	}
	h.want(swTriesLeft|3, "00 20 00 80 00") // unblocked, not verified
	if sw := h.verify("111111"); sw != swOK {
		t.Errorf("new PIN: %v", sw)
	}
	for _, want := range []status{swTriesLeft | 2, swTriesLeft | 1, swTriesLeft, swBlocked, swBlocked} {
		if sw := unblock("00000000", "222222"); sw != want {
			t.Errorf("wrong PUK: %v, want %v", sw, want)
		}
	}
	h.want(swNoReference, "00 2C 00 81 00")
	h.want(swWrongData, "00 2C 00 80 00")
}

func TestSetRetries(t *testing.T) {
	h := newHost(t, Config{PIN: "246802", PUK: "13579135"})
	h.manage()
	h.want(swSecurity, "00 FA 05 04 00") // no PIN
	h.verify("246802")
	h.want(swWrongP1P2, "00 FA 00 04 00")
	h.ok("00 FA FF 04 00")
	h.want(swTriesLeft|15, "00 20 00 80 00") // 255 do not fit in the status word
	if h.card.PINTries() != 255 || h.card.PUKTries() != 4 {
		t.Errorf("tries: %d and %d", h.card.PINTries(), h.card.PUKTries())
	}
	if sw := h.verify(DefaultPIN); sw != swOK {
		t.Errorf("the PIN is not the factory's: %v", sw)
	}
}

func TestFactoryReset(t *testing.T) {
	h := newHost(t, Config{PIN: "246802", ManagementKey: []byte(strings.Repeat("k", 32))})
	if sw := h.authenticate(AlgorithmAES256, []byte(strings.Repeat("k", 32))); sw != swOK {
		t.Fatal(sw)
	}
	h.generate(slotAuthentication, algP256)
	h.want(swConditions, "00 FB 00 00")
	for h.card.PINTries() > 0 {
		h.verify("000000")
	}
	h.want(swConditions, "00 FB 00 00")
	for h.card.PUKTries() > 0 {
		h.send(insChangeReference, 0, refPUK, pairs("00000000", "00000000"))
	}
	h.want(swWrongP1P2, "00 FB 00 01")
	h.ok("00 FB 00 00")
	h.want(swNoReference, "00 F7 00 9A")
	h.want(swNotFound, "00 CB 3F FF 05 5C 03 5F C1 02")
	h.want(swSecurity, "00 47 00 9A 05 AC 03 80 01 11") // no longer authenticated
	h.manage()
	h.generate(slotAuthentication, algP256)
	if sw := h.verify(DefaultPIN); sw != swOK {
		t.Error(sw)
	}
	h.do(insAttest, slotAuthentication, 0, nil) // the attestation key survived
}

func TestBadConfig(t *testing.T) {
	for name, config := range map[string]Config{
		"short PIN":         {PIN: "12345"},
		"long PUK":          {PUK: "123456789"},
		"padding in PIN":    {PIN: "1234\xFF56"},
		"short key":         {ManagementKey: make([]byte, 23)},
		"unknown cipher":    {ManagementAlgorithm: 0x07},
		"cipher too new":    {Version: [3]byte{5, 2, 0}, ManagementAlgorithm: AlgorithmAES192},
		"key for no cipher": {ManagementKey: make([]byte, 16), ManagementAlgorithm: AlgorithmAES256},
	} {
		if _, err := NewCard(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
