package vpiv

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
)

// The algorithms of the management key, by their identifiers in SP 800-78-4, table 6-2.
const (
	AlgorithmTripleDES byte = 0x03
	AlgorithmAES128    byte = 0x08
	AlgorithmAES192    byte = 0x0A
	AlgorithmAES256    byte = 0x0C
)

// Touch policies, of the management key and of others.
const (
	touchNever  = 1
	touchAlways = 2
	touchCached = 3
)

// managementKey is the key of reference 9B, with which the card's owner proves to be that.
type managementKey struct {
	algorithm byte
	key       []byte
	touch     byte
}

// defaultManagementKey is the factory's: public, the same on every card, and as long as Triple-DES and AES-192 want.
var defaultManagementKey = bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 3)

func (c *Card) factoryManagementKey() managementKey {
	m := managementKey{algorithm: AlgorithmTripleDES, key: bytes.Clone(defaultManagementKey), touch: touchNever}
	if c.atLeast(5, 7) {
		m.algorithm = AlgorithmAES192
	}
	return m
}

// newManagementKey is the management key of a Config.
func (c *Card) newManagementKey(algorithm byte, key []byte) (managementKey, error) {
	m := c.factoryManagementKey()
	if key != nil {
		m.key = bytes.Clone(key)
	}
	switch {
	case algorithm != 0:
		m.algorithm = algorithm
	case len(m.key) == 16:
		m.algorithm = AlgorithmAES128
	case len(m.key) == 32:
		m.algorithm = AlgorithmAES256
	}
	if m.algorithm != AlgorithmTripleDES && !c.atLeast(5, 4) {
		return m, errors.New("AES needs version 5.4 or later")
	}
	if _, err := m.cipher(); err != nil {
		return m, err
	}
	return m, nil
}

// cipher returns the block cipher under the key; it fails for a key that does not fit the algorithm.
func (m *managementKey) cipher() (cipher.Block, error) {
	size, ok := managementKeySize(m.algorithm)
	if !ok {
		return nil, fmt.Errorf("no such algorithm: %02X", m.algorithm)
	}
	if len(m.key) != size {
		return nil, fmt.Errorf("want %d bytes, have %d", size, len(m.key))
	}
	if m.algorithm == AlgorithmTripleDES {
		return des.NewTripleDESCipher(m.key)
	}
	return aes.NewCipher(m.key)
}

func managementKeySize(algorithm byte) (size int, ok bool) {
	switch algorithm {
	case AlgorithmAES128:
		return 16, true
	case AlgorithmTripleDES, AlgorithmAES192:
		return 24, true
	case AlgorithmAES256:
		return 32, true
	}
	return 0, false
}

// The objects of a dynamic authentication template: SP 800-73-4 part 2, table 7.
const (
	tagDynamic        = 0x7C
	tagWitness        = 0x80
	tagChallenge      = 0x81
	tagResponse       = 0x82
	tagExponentiation = 0x85
)

// authenticateManagement is GENERAL AUTHENTICATE with reference 9B: mutual authentication (SP 800-73-4 part 2, appendix
// A.1) or external authentication of the host alone. What the card sent serves one answer, right or wrong.
func (c *Card) authenticateManagement(algorithm byte, objects []tlv) ([]byte, status) {
	m := &c.state.management
	if algorithm != m.algorithm {
		return nil, swWrongP1P2
	}
	block, err := m.cipher()
	if err != nil {
		return nil, swConditions
	}
	witness, challenge := c.session.witness, c.session.challenge
	c.session.witness, c.session.challenge = nil, nil

	hostWitness, hasWitness := findTLV(objects, tagWitness)
	hostChallenge, hasChallenge := findTLV(objects, tagChallenge)
	hostResponse, hasResponse := findTLV(objects, tagResponse)
	switch {
	case hasWitness && len(hostWitness) == 0:
		c.session.witness = randomBlock(block)
		return dynamic(tagWitness, encrypt(block, c.session.witness)), swOK
	case hasWitness && hasChallenge:
		return c.answerMutual(block, witness, hostWitness, hostChallenge)
	case hasChallenge && len(hostChallenge) == 0:
		c.session.challenge = randomBlock(block)
		return dynamic(tagChallenge, c.session.challenge), swOK
	case hasResponse && len(hostResponse) > 0:
		if len(challenge) == 0 {
			return nil, swConditions
		}
		return nil, c.proveManagement(hostResponse, encrypt(block, challenge))
	}
	return nil, swWrongData
}

// answerMutual checks the host's decryption of the witness and answers its challenge.
func (c *Card) answerMutual(block cipher.Block, sent, witness, challenge []byte) ([]byte, status) {
	if len(sent) == 0 {
		return nil, swConditions
	}
	if len(challenge) != block.BlockSize() {
		return nil, swWrongData
	}
	if sw := c.proveManagement(witness, sent); sw != swOK {
		return nil, sw
	}
	return dynamic(tagResponse, encrypt(block, challenge)), swOK
}

// proveManagement compares what the host computed with what only the key's holder can.
func (c *Card) proveManagement(have, want []byte) status {
	c.session.managed = false
	if subtle.ConstantTimeCompare(have, want) != 1 {
		return swSecurity
	}
	if c.state.management.touch != touchNever && !c.touched {
		return swSecurity
	}
	c.session.managed = true
	return swOK
}

// P2 of SET MANAGEMENT KEY.
const (
	managementNoTouch     = 0xFF
	managementTouch       = 0xFE
	managementTouchCached = 0xFD
)

// setManagementKey is the extension SET MANAGEMENT KEY: algorithm, 9B, length, key.
func (c *Card) setManagementKey(cmd command) status {
	if !c.session.managed {
		return swSecurity
	}
	m := managementKey{touch: touchNever}
	switch {
	case cmd.p1 != 0xFF:
		return swWrongP1P2
	case cmd.p2 == managementTouch:
		m.touch = touchAlways
	case cmd.p2 == managementTouchCached:
		m.touch = touchCached
	case cmd.p2 != managementNoTouch:
		return swWrongP1P2
	}
	if len(cmd.data) < 3 || cmd.data[1] != refManagement || int(cmd.data[2]) != len(cmd.data)-3 {
		return swWrongData
	}
	m.algorithm, m.key = cmd.data[0], bytes.Clone(cmd.data[3:])
	if m.algorithm != AlgorithmTripleDES && !c.atLeast(5, 4) {
		return swWrongData
	}
	if _, err := m.cipher(); err != nil {
		return swWrongData
	}
	c.dirty = true
	c.state.management = m
	return swOK
}

// dynamic wraps one object in a dynamic authentication template.
func dynamic(tag uint32, value []byte) []byte {
	return encodeTLV(tagDynamic, encodeTLV(tag, value))
}

func randomBlock(block cipher.Block) []byte {
	b := make([]byte, block.BlockSize())
	rand.Read(b) // never fails
	return b
}

// encrypt encrypts one block.
func encrypt(block cipher.Block, plain []byte) []byte {
	out := make([]byte, block.BlockSize())
	block.Encrypt(out, plain)
	return out
}
