package vpiv

import "slices"

// The key references that hold asymmetric keys: SP 800-73-4 part 1, table 4b, and the extensions' attestation key.
const (
	slotAuthentication = 0x9A
	slotSignature      = 0x9C
	slotKeyManagement  = 0x9D
	slotCardAuth       = 0x9E
	slotRetiredFirst   = 0x82
	slotRetiredLast    = 0x95
	slotAttestation    = 0xF9
)

// isSlot reports whether ref is a place for an asymmetric key.
func isSlot(ref byte) bool {
	switch ref {
	case slotAuthentication, slotSignature, slotKeyManagement, slotCardAuth, slotAttestation:
		return true
	}
	return slotRetiredFirst <= ref && ref <= slotRetiredLast
}

// The algorithm identifiers of asymmetric keys: SP 800-78-4, table 6-2, and from algRSA3072 on the extensions'.
const (
	algRSA1024 = 0x06
	algRSA2048 = 0x07
	algP256    = 0x11
	algP384    = 0x14
	algRSA3072 = 0x05
	algRSA4096 = 0x16
	algEd25519 = 0xE0
	algX25519  = 0xE1
)

// hasAlgorithm reports whether the card's version knows the algorithm.
func (c *Card) hasAlgorithm(algorithm byte) bool {
	switch algorithm {
	case algRSA1024, algRSA2048, algP256:
		return true
	case algP384:
		return c.atLeast(4, 0)
	case algRSA3072, algRSA4096, algEd25519, algX25519:
		return c.atLeast(5, 7)
	}
	return false
}

// PIN policies of a key.
const (
	pinNever  = 1
	pinOnce   = 2
	pinAlways = 3
)

// Origins of a key, as metadata tells them.
const (
	originGenerated = 1
	originImported  = 2
)

// slotKey is a key pair in a slot.
type slotKey struct {
	algorithm byte
	pin       byte // policy
	touch     byte // policy
	origin    byte
	private   privateKey
}

// policies are the objects that say how a new key may be used.
const (
	tagPINPolicy   = 0xAA
	tagTouchPolicy = 0xAB
)

// parsePolicies reads the PIN and touch policy from the objects of GENERATE or IMPORT. What is not said, or said to be
// zero, is what SP 800-73-4 fixes for the slot. The policies of biometric cards (4 and 5) are refused.
func (c *Card) parsePolicies(slot byte, objects []tlv) (pin, touch byte, sw status) {
	pin, touch = defaultPINPolicy(slot), touchNever
	if value, ok := findTLV(objects, tagPINPolicy); ok {
		if len(value) != 1 || value[0] > pinAlways || !c.atLeast(4, 0) {
			return 0, 0, swWrongData
		}
		if value[0] != 0 {
			pin = value[0]
		}
	}
	if value, ok := findTLV(objects, tagTouchPolicy); ok {
		if len(value) != 1 || value[0] > touchCached || !c.atLeast(4, 0) {
			return 0, 0, swWrongData
		}
		if value[0] != 0 {
			touch = value[0]
		}
	}
	return pin, touch, swOK
}

// defaultPINPolicy is SP 800-73-4 part 1, table 4b.
func defaultPINPolicy(slot byte) byte {
	switch slot {
	case slotSignature:
		return pinAlways
	case slotCardAuth, slotAttestation:
		return pinNever
	}
	return pinOnce
}

// permitted reports whether the key may be used now. fresh says that the command before was a successful VERIFY.
func (c *Card) permitted(key *slotKey, fresh bool) bool {
	if key.pin == pinOnce && !c.session.pinVerified || key.pin == pinAlways && !fresh {
		return false
	}
	return key.touch == touchNever || c.touched
}

// tagCryptoMechanism holds the parameters of GENERATE ASYMMETRIC KEY PAIR; tagAlgorithm and tagPublicKey are SP 800-73-4
// part 2, tables 10 and 11.
const (
	tagCryptoMechanism = 0xAC
	tagAlgorithm       = 0x80
	tagPublicKey       = 0x7F49
)

// generate is GENERATE ASYMMETRIC KEY PAIR: SP 800-73-4 part 2, section 3.3.2.
func (c *Card) generate(cmd command) ([]byte, status) {
	if !c.session.managed {
		return nil, swSecurity
	}
	if cmd.p1 != 0 || !isSlot(cmd.p2) {
		return nil, swWrongP1P2
	}
	objects, ok := parseTemplate(tagCryptoMechanism, cmd.data)
	if !ok {
		return nil, swWrongData
	}
	algorithm, _ := findTLV(objects, tagAlgorithm)
	if len(algorithm) != 1 || !c.hasAlgorithm(algorithm[0]) {
		return nil, swWrongData
	}
	pin, touch, sw := c.parsePolicies(cmd.p2, objects)
	if sw != swOK {
		return nil, sw
	}
	private, err := generateKey(algorithm[0])
	if err != nil {
		return nil, swConditions
	}
	c.dirty = true
	c.state.keys[cmd.p2] = &slotKey{algorithm[0], pin, touch, originGenerated, private}
	return encodeTLV(tagPublicKey, private.publicTLVs()), swOK
}

// importKey is the extension IMPORT ASYMMETRIC KEY.
func (c *Card) importKey(cmd command) status {
	if !c.session.managed {
		return swSecurity
	}
	if !isSlot(cmd.p2) || !c.hasAlgorithm(cmd.p1) {
		return swWrongP1P2
	}
	objects, ok := parseTLVs(cmd.data)
	if !ok {
		return swWrongData
	}
	pin, touch, sw := c.parsePolicies(cmd.p2, objects)
	if sw != swOK {
		return sw
	}
	private, ok := parsePrivateKey(cmd.p1, objects)
	if !ok {
		return swWrongData
	}
	c.dirty = true
	c.state.keys[cmd.p2] = &slotKey{cmd.p1, pin, touch, originImported, private}
	return swOK
}

// moveToNowhere is the destination of MOVE KEY that deletes.
const moveToNowhere = 0xFF

// moveKey is the extension MOVE KEY of version 5.7: P1 is where to, P2 where from. A key moved keeps its policies and
// origin. The attestation key can be deleted, but not moved.
func (c *Card) moveKey(cmd command) status {
	if !c.session.managed {
		return swSecurity
	}
	to, from := cmd.p1, cmd.p2
	if !isSlot(from) || to != moveToNowhere && (!isSlot(to) || to == slotAttestation || from == slotAttestation) {
		return swWrongP1P2
	}
	key := c.state.keys[from]
	if key == nil {
		return swNoReference
	}
	if to != moveToNowhere {
		if c.state.keys[to] != nil {
			return swConditions // nothing is overwritten
		}
		c.state.keys[to] = key
	}
	c.dirty = true
	delete(c.state.keys, from)
	return swOK
}

// The objects of GET METADATA.
const (
	metaAlgorithm = 0x01
	metaPolicy    = 0x02
	metaOrigin    = 0x03
	metaPublic    = 0x04
	metaDefault   = 0x05
	metaTries     = 0x06
)

// metaAlgorithmPIN is what stands for an algorithm in the metadata of PIN and PUK.
const metaAlgorithmPIN = 0xFF

// getMetadata is the extension GET METADATA.
func (c *Card) getMetadata(cmd command) ([]byte, status) {
	if cmd.p1 != 0 {
		return nil, swWrongP1P2
	}
	switch cmd.p2 {
	case refPIN:
		return c.state.pin.metadata(DefaultPIN), swOK
	case refPUK:
		return c.state.puk.metadata(DefaultPUK), swOK
	case refManagement:
		m := c.state.management
		out := appendTLV(nil, metaAlgorithm, []byte{m.algorithm})
		out = appendTLV(out, metaPolicy, []byte{0, m.touch})
		out = appendTLV(out, metaOrigin, []byte{originGenerated})
		return appendTLV(out, metaDefault, []byte{flag(slices.Equal(m.key, defaultManagementKey))}), swOK
	}
	key := c.state.keys[cmd.p2]
	if key == nil {
		return nil, swNoReference
	}
	out := appendTLV(nil, metaAlgorithm, []byte{key.algorithm})
	out = appendTLV(out, metaPolicy, []byte{key.pin, key.touch})
	out = appendTLV(out, metaOrigin, []byte{key.origin})
	return appendTLV(out, metaPublic, key.private.publicTLVs()), swOK
}

func (r *reference) metadata(factory string) []byte {
	unchanged := r.value == factoryReference(factory, 0).value
	out := appendTLV(nil, metaAlgorithm, []byte{metaAlgorithmPIN})
	out = appendTLV(out, metaDefault, []byte{flag(unchanged)})
	return appendTLV(out, metaTries, []byte{byte(r.most), byte(r.tries)})
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}
