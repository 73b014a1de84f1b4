package vpiv

import (
	"bytes"
	"crypto/sha256"
)

// The tags of data objects: SP 800-73-4 part 1, table 3, and the extensions' attestation certificate.
const (
	objCapabilities = 0x5FC107
	objCHUID        = 0x5FC102
	objFingerprints = 0x5FC103
	objFacial       = 0x5FC108
	objPrinted      = 0x5FC109
	objIris         = 0x5FC121
	objPairingCode  = 0x5FC123
	objDiscovery    = 0x7E
	objBiometric    = 0x7F61 // biometric information templates group template
	objAttestation  = 0x5FFF01
)

const (
	tagTagList    = 0x5C
	tagData       = 0x53
	tagDiscovery  = 0x7E
	maxObject     = 3052      // bytes of one object: what the keys with the extensions take
	maxAllObjects = 51 * 1024 // bytes of all objects
)

// getData is GET DATA: SP 800-73-4 part 2, section 3.1.2.
func (c *Card) getData(cmd command) ([]byte, status) {
	if cmd.p1 != 0x3F || cmd.p2 != 0xFF {
		return nil, swWrongP1P2
	}
	list, rest, ok := nextTLV(cmd.data)
	if !ok || list.tag != tagTagList || len(rest) != 0 {
		return nil, swWrongData
	}
	tag, ok := objectTag(list.value)
	if !ok {
		return nil, swWrongData
	}
	if needsPIN(tag) && !c.session.pinVerified {
		return nil, swSecurity
	}
	if tag == objDiscovery {
		return discovery(), swOK
	}
	value, ok := c.state.objects[tag]
	if !ok {
		return nil, swNotFound
	}
	if tag == objBiometric {
		return encodeTLV(objBiometric, value), swOK
	}
	return encodeTLV(tagData, value), swOK
}

// putData is PUT DATA: SP 800-73-4 part 2, section 3.3.1. An empty value deletes the object. The discovery object says
// what the card is, so it cannot be written.
func (c *Card) putData(cmd command) status {
	if !c.session.managed {
		return swSecurity
	}
	if cmd.p1 != 0x3F || cmd.p2 != 0xFF {
		return swWrongP1P2
	}
	tag, value, ok := parsePut(cmd.data)
	switch {
	case !ok:
		return swWrongData
	case tag == objDiscovery:
		return swFunction
	case len(value) > maxObject:
		return swWrongLength
	case c.objectBytes()-len(c.state.objects[tag])+len(value) > maxAllObjects:
		return swMemory
	}
	c.dirty = true
	if len(value) == 0 {
		delete(c.state.objects, tag)
		return swOK
	}
	c.state.objects[tag] = bytes.Clone(value)
	return swOK
}

// parsePut reads the data of PUT DATA: a tag list of one tag and the value, or one of the two objects that are written
// with their own tag.
func parsePut(data []byte) (tag uint32, value []byte, ok bool) {
	first, rest, ok := nextTLV(data)
	if !ok {
		return 0, nil, false
	}
	if (first.tag == objDiscovery || first.tag == objBiometric) && len(rest) == 0 {
		return first.tag, first.value, true
	}
	if first.tag != tagTagList {
		return 0, nil, false
	}
	if tag, ok = objectTag(first.value); !ok {
		return 0, nil, false
	}
	content, rest, ok := nextTLV(rest)
	if !ok || content.tag != tagData || len(rest) != 0 {
		return 0, nil, false
	}
	return tag, content.value, true
}

// objectTag reads the one tag of a tag list.
func objectTag(list []byte) (tag uint32, ok bool) {
	tag, rest, ok := cutTag(list)
	return tag, ok && len(rest) == 0
}

// needsPIN is the read access rule of table 2 in SP 800-73-4 part 1.
func needsPIN(tag uint32) bool {
	switch tag {
	case objPrinted, objFingerprints, objFacial, objIris, objPairingCode:
		return true
	}
	return false
}

func (c *Card) objectBytes() int {
	n := 0
	for _, value := range c.state.objects {
		n += len(value)
	}
	return n
}

// discovery is the discovery object: the PIV application with its own PIN, and no other way to satisfy the access rules
// (SP 800-73-4 part 1, section 3.3.2).
func discovery() []byte {
	body := appendTLV(nil, 0x4F, aidPIV)
	body = appendTLV(body, 0x5F2F, []byte{0x40, 0x00})
	return encodeTLV(tagDiscovery, body)
}

// personalise writes the two objects no issued card lacks. Both follow from the serial number, so that hosts which tell
// cards apart by them see the same card again after a restart. A factory reset removes them.
func (c *Card) personalise() {
	id := sha256.Sum256([]byte{
		'v', 'p', 'i', 'v',
		byte(c.state.serial >> 24), byte(c.state.serial >> 16), byte(c.state.serial >> 8), byte(c.state.serial),
	})
	c.state.objects[objCHUID] = chuid(id)
	c.state.objects[objCapabilities] = capabilities(id)
}

// chuid is a card holder unique identifier without signature: SP 800-73-4 part 1, section 3.1.2 and table 9. The FASC-N
// is the one for cards that no US agency issued; the GUID is a version 4 UUID.
func chuid(id [32]byte) []byte {
	fascN := []byte{
		0xD4, 0xE7, 0x39, 0xDA, 0x73, 0x9C, 0xED, 0x39, 0xCE, 0x73, 0x9D, 0x83, 0x68, 0x58, 0x21, 0x08,
		0x42, 0x10, 0x84, 0x21, 0xC8, 0x42, 0x10, 0xC3, 0xEB,
	}
	guid := bytes.Clone(id[:16])
	guid[6], guid[8] = guid[6]&0x0F|0x40, guid[8]&0x3F|0x80
	out := appendTLV(nil, 0x30, fascN)
	out = appendTLV(out, 0x34, guid)
	out = appendTLV(out, 0x35, []byte("20991231"))
	out = appendTLV(out, 0x3E, nil)
	return appendTLV(out, 0xFE, nil)
}

// capabilities is a card capability container: SP 800-73-4 part 1, section 3.1.1 and table 8.
func capabilities(id [32]byte) []byte {
	// Registered provider and card type of a GSC-IS card, then the card's own identifier.
	cardID := append([]byte{0xA0, 0, 0, 0x01, 0x16, 0xFF, 0x02}, id[16:30]...)
	out := appendTLV(nil, 0xF0, cardID)
	out = appendTLV(out, 0xF1, []byte{0x21}) // container version 2.1
	out = appendTLV(out, 0xF2, []byte{0x21}) // grammar version 2.1
	out = appendTLV(out, 0xF3, nil)
	out = appendTLV(out, 0xF4, []byte{0x00})
	out = appendTLV(out, 0xF5, []byte{0x10}) // PIV data model
	for tag := uint32(0xF6); tag <= 0xFD; tag++ {
		out = appendTLV(out, tag, nil)
	}
	return appendTLV(out, 0xFE, nil)
}
