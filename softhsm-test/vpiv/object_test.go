package vpiv

import (
	"bytes"
	"testing"
)

func TestSelectResponse(t *testing.T) {
	h := newHost(t, Config{})
	full := h.ok("00 A4 04 00 0B A0 00 00 03 08 00 00 10 00 01 00 00")
	if !bytes.Equal(full, h.selectPIV()) {
		t.Error("the answer depends on how much of the identifier is given")
	}
	objects, ok := parseTemplate(0x61, full)
	if !ok || !bytes.Equal(need(t, objects, 0x4F), unhex(t, "00 00 10 00 01 00")) ||
		!bytes.Equal(need(t, objects, 0x79), unhex(t, "4F 05 A0 00 00 03 08")) {
		t.Errorf("template: % X", full)
	}
}

func TestDiscovery(t *testing.T) {
	h := newHost(t, Config{})
	want := unhex(t, "7E 12 4F 0B A0 00 00 03 08 00 00 10 00 01 00 5F 2F 02 40 00")
	if got := h.ok("00 CB 3F FF 03 5C 01 7E 00"); !bytes.Equal(got, want) {
		t.Errorf("% X", got)
	}
	h.manage()
	h.want(swFunction, "00 DB 3F FF 02 7E 00")
}

func TestIssuedObjects(t *testing.T) {
	h := newHost(t, Config{Serial: 7})
	chuid := h.ok("00 CB 3F FF 05 5C 03 5F C1 02 00")
	objects, ok := parseTemplate(tagData, chuid)
	if !ok || len(need(t, objects, 0x30)) != 25 || len(need(t, objects, 0x34)) != 16 || len(need(t, objects, 0x35)) != 8 {
		t.Errorf("CHUID: % X", chuid)
	}
	ccc := h.ok("00 CB 3F FF 05 5C 03 5F C1 07 00")
	objects, ok = parseTemplate(tagData, ccc)
	if !ok || len(need(t, objects, 0xF0)) != 21 || !bytes.Equal(need(t, objects, 0xF5), []byte{0x10}) {
		t.Errorf("CCC: % X", ccc)
	}
	other := newHost(t, Config{Serial: 8}).ok("00 CB 3F FF 05 5C 03 5F C1 02 00")
	again := newHost(t, Config{Serial: 7}).ok("00 CB 3F FF 05 5C 03 5F C1 02 00")
	if bytes.Equal(chuid, other) || !bytes.Equal(chuid, again) {
		t.Error("the CHUID does not follow the serial number")
	}
	h.want(swNotFound, "00 CB 3F FF 05 5C 03 5F C1 0C 00") // no key history
}

func TestPutData(t *testing.T) {
	h := newHost(t, Config{})
	h.want(swSecurity, "00 DB 3F FF 08 5C 03 5F C1 05 53 01 AA")
	h.manage()
	h.ok("00 DB 3F FF 08 5C 03 5F C1 05 53 01 AA")
	if got := h.ok("00 CB 3F FF 05 5C 03 5F C1 05"); !bytes.Equal(got, unhex(t, "53 01 AA")) {
		t.Errorf("% X", got)
	}
	h.ok("00 DB 3F FF 07 5C 03 5F C1 05 53 00")
	h.want(swNotFound, "00 CB 3F FF 05 5C 03 5F C1 05")
	h.ok("00 DB 3F FF 05 7F 61 02 02 00")
	if got := h.ok("00 CB 3F FF 04 5C 02 7F 61"); !bytes.Equal(got, unhex(t, "7F 61 02 02 00")) {
		t.Errorf("% X", got)
	}
	for _, bad := range []string{
		"00 DB 3F FF 00", "00 DB 3F FF 05 5C 03 5F C1 05", "00 DB 3F FF 08 5C 03 5F C1 05 53 02 AA",
		"00 DB 3F FF 08 5C 03 5F C1 05 54 01 AA", "00 DB 3F FF 09 5C 03 5F C1 05 53 01 AA 00",
		"00 DB 3F FF 0B 5C 06 5F C1 05 5F C1 06 53 01 AA", "00 DB 3F FF 05 5C 00 53 01 AA", "00 DB 3F FF 03 53 01 AA",
	} {
		h.want(swWrongData, bad)
	}
	h.want(swWrongP1P2, "00 DB 00 00 08 5C 03 5F C1 05 53 01 AA")
	h.want(swWrongP1P2, "00 CB 00 00 05 5C 03 5F C1 05")
	h.want(swWrongData, "00 CB 3F FF 05 5C 04 5F C1 05")
	h.want(swWrongData, "00 CB 3F FF 00")
	h.want(swWrongData, "00 CB 3F FF 08 5C 06 5F C1 05 5F C1 06")
}

func TestObjectsBehindThePIN(t *testing.T) {
	h := newHost(t, Config{})
	h.manage()
	h.ok("00 DB 3F FF 08 5C 03 5F C1 09 53 01 AA")
	h.want(swSecurity, "00 CB 3F FF 05 5C 03 5F C1 09")
	h.want(swSecurity, "00 CB 3F FF 05 5C 03 5F C1 03") // whether it is there or not
	h.verify(DefaultPIN)
	h.ok("00 CB 3F FF 05 5C 03 5F C1 09")
	h.want(swNotFound, "00 CB 3F FF 05 5C 03 5F C1 03")
}

func TestFullCard(t *testing.T) {
	h := newHost(t, Config{})
	h.manage()
	put := func(id byte, n int) status {
		data := appendTLV([]byte{0x5C, 3, 0x5F, 0xC1, id}, tagData, make([]byte, n))
		_, sw := h.send(insPutData, 0x3F, 0xFF, data)
		return sw
	}
	if sw := put(0x05, maxObject+1); sw != swWrongLength {
		t.Errorf("object too long: %v", sw)
	}
	id, sw := byte(0x0D), swOK
	for ; sw == swOK && id < 0x30; id++ {
		sw = put(id, maxObject)
	}
	if sw != swMemory {
		t.Fatalf("after %d objects: %v", id, sw)
	}
	if sw := put(0x0D, maxObject); sw != swOK {
		t.Errorf("replacing an object on a full card: %v", sw)
	}
	if sw := put(0x0D, 0); sw != swOK {
		t.Errorf("deleting an object: %v", sw)
	}
	if sw := put(id, maxObject); sw != swOK {
		t.Errorf("in the room that made: %v", sw)
	}
}

func TestOtherApplications(t *testing.T) {
	h := newHost(t, Config{Serial: 0x01020304, Version: [3]byte{4, 3, 5}, FormFactor: 3})
	h.ok("00 A4 04 00 08 A0 00 00 05 27 20 01 01")
	if got := h.ok("00 01 10 00 00"); !bytes.Equal(got, []byte{1, 2, 3, 4}) {
		t.Errorf("serial: % X", got)
	}
	if got := h.ok("00 03 00 00 00"); !bytes.Equal(got[:3], []byte{4, 3, 5}) {
		t.Errorf("status: % X", got)
	}
	h.want(swWrongINS, "00 FD 00 00 00")
	if got := h.ok("00 A4 04 00 08 A0 00 00 05 27 47 11 17"); !bytes.Contains(got, []byte("4.3.5")) {
		t.Errorf("management: %s", got)
	}
	info := h.ok("00 1D 00 00 00")
	objects, ok := parseTLVs(info[1:])
	if !ok || int(info[0]) != len(info)-1 || !bytes.Equal(need(t, objects, 4), []byte{3}) ||
		!bytes.Equal(need(t, objects, 2), []byte{1, 2, 3, 4}) {
		t.Errorf("device information: % X", info)
	}
	h.want(swWrongINS, "00 01 10 00 00")
	newHost(t, Config{Version: [3]byte{3, 5, 0}}).want(swNotFound, "00 A4 04 00 08 A0 00 00 05 27 47 11 17")
}
