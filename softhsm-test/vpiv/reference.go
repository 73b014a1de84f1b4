package vpiv

import (
	"bytes"
	"crypto/subtle"
	"errors"
)

// The references of VERIFY and its relatives: SP 800-73-4 part 1, table 4, and the extensions' key references.
const (
	refPIN        = 0x80
	refPUK        = 0x81
	refManagement = 0x9B
)

// A PIN or PUK is eight bytes on the wire, the rest filled with referencePad: SP 800-73-4 part 2, section 2.4.3.
const (
	referenceLen = 8
	referenceMin = 6
	referencePad = 0xFF
)

// reference is the PIN or the PUK and its retry counter.
type reference struct {
	value [referenceLen]byte // padded
	tries int                // left
	most  int                // what tries is after a success
}

var errReference = errors.New("want 6 to 8 bytes, none of them FF")

// newReference makes a reference of text, or of the factory's text where that is empty.
func newReference(text, factory string) (reference, error) {
	if text == "" {
		text = factory
	}
	if len(text) > referenceLen {
		return reference{}, errReference
	}
	padded := append([]byte(text), bytes.Repeat([]byte{referencePad}, referenceLen-len(text))...)
	if !validReference(padded) {
		return reference{}, errReference
	}
	return reference{value: [referenceLen]byte(padded), tries: defaultTries, most: defaultTries}, nil
}

// validReference reports whether padded may become a PIN or PUK. SP 800-73-4 wants digits in a PIN; the cards with the
// extensions take any bytes, and so does this one.
func validReference(padded []byte) bool {
	if len(padded) != referenceLen {
		return false
	}
	text := bytes.TrimRight(padded, "\xFF")
	return len(text) >= referenceMin && !bytes.Contains(text, []byte{referencePad})
}

// counter returns the answer to a question for the tries left. A status word has four bits for them.
func (r *reference) counter() status {
	if r.tries == 0 {
		return swBlocked
	}
	return swTriesLeft | status(min(r.tries, 15))
}

// check compares a candidate and keeps the count. The counter goes down before the comparison, so that pulling the card
// in the middle does not buy a try.
func (r *reference) check(padded []byte) status {
	if r.tries == 0 {
		return swBlocked
	}
	r.tries--
	if subtle.ConstantTimeCompare(padded, r.value[:]) != 1 {
		return swTriesLeft | status(min(r.tries, 15))
	}
	r.tries = r.most
	return swOK
}

// set replaces the value and fills the counter.
func (r *reference) set(padded []byte) {
	copy(r.value[:], padded)
	r.tries = r.most
}

// verify is VERIFY: SP 800-73-4 part 2, section 3.2.1.
func (c *Card) verify(cmd command) status {
	if cmd.p2 != refPIN {
		return swNoReference // no global PIN, no biometric, no pairing code
	}
	pin := &c.state.pin
	switch {
	case cmd.p1 == 0xFF && len(cmd.data) == 0:
		c.session.pinVerified, c.session.pinFresh = false, false
		return swOK
	case cmd.p1 != 0x00:
		return swWrongP1P2
	case len(cmd.data) == 0 && c.session.pinVerified:
		return swOK
	case len(cmd.data) == 0:
		return pin.counter()
	case len(cmd.data) != referenceLen:
		return swWrongData // and the counter stays
	}
	c.dirty = true
	sw := pin.check(cmd.data)
	c.session.pinVerified, c.session.pinFresh = sw == swOK, sw == swOK
	return sw
}

// changeReference is CHANGE REFERENCE DATA for the PIN and the PUK: SP 800-73-4 part 2, section 3.2.2.
func (c *Card) changeReference(cmd command) status {
	if cmd.p1 != 0 {
		return swWrongP1P2
	}
	var r *reference
	switch cmd.p2 {
	case refPIN:
		r = &c.state.pin
	case refPUK:
		r = &c.state.puk
	default:
		return swNoReference
	}
	if len(cmd.data) != 2*referenceLen || !validReference(cmd.data[referenceLen:]) {
		return swWrongData // and the counter stays
	}
	c.dirty = true
	sw := r.check(cmd.data[:referenceLen])
	if sw == swOK {
		r.set(cmd.data[referenceLen:])
	}
	if cmd.p2 == refPIN {
		c.session.pinVerified = sw == swOK
	}
	return sw
}

// resetRetryCounter is RESET RETRY COUNTER: the PUK sets a new PIN (SP 800-73-4 part 2, section 3.2.3).
func (c *Card) resetRetryCounter(cmd command) status {
	if cmd.p1 != 0 {
		return swWrongP1P2
	}
	if cmd.p2 != refPIN {
		return swNoReference
	}
	if len(cmd.data) != 2*referenceLen || !validReference(cmd.data[referenceLen:]) {
		return swWrongData
	}
	c.dirty = true
	sw := c.state.puk.check(cmd.data[:referenceLen])
	if sw == swOK {
		c.state.pin.set(cmd.data[referenceLen:])
		c.session.pinVerified = false
	}
	return sw
}

// setRetries is the extension SET PIN RETRIES: P1 tries for the PIN, P2 for the PUK. Both become the factory's again.
func (c *Card) setRetries(cmd command) status {
	if !c.session.managed || !c.session.pinVerified {
		return swSecurity
	}
	if cmd.p1 == 0 || cmd.p2 == 0 {
		return swWrongP1P2
	}
	if len(cmd.data) != 0 {
		return swWrongLength
	}
	c.dirty = true
	c.state.pin = factoryReference(DefaultPIN, int(cmd.p1))
	c.state.puk = factoryReference(DefaultPUK, int(cmd.p2))
	c.session.pinVerified = false
	return swOK
}

// factoryReference returns one of the factory's secrets with a counter of its own.
func factoryReference(text string, tries int) reference {
	r := reference{tries: tries, most: tries}
	copy(r.value[:], bytes.Repeat([]byte{referencePad}, referenceLen))
	copy(r.value[:], text)
	return r
}

// factoryReset is the extension RESET: it needs PIN and PUK blocked and leaves a new card. The attestation key and its
// certificate stay.
func (c *Card) factoryReset(cmd command) status {
	if cmd.p1 != 0 || cmd.p2 != 0 {
		return swWrongP1P2
	}
	if c.state.pin.tries != 0 || c.state.puk.tries != 0 {
		return swConditions
	}
	c.dirty = true
	attestation, certificate := c.state.keys[slotAttestation], c.state.objects[objAttestation]
	c.state.pin = factoryReference(DefaultPIN, defaultTries)
	c.state.puk = factoryReference(DefaultPUK, defaultTries)
	c.state.management = c.factoryManagementKey()
	clear(c.state.keys)
	clear(c.state.objects)
	if attestation != nil {
		c.state.keys[slotAttestation] = attestation
	}
	if certificate != nil {
		c.state.objects[objAttestation] = certificate
	}
	c.session = session{app: appPIV}
	return swOK
}
