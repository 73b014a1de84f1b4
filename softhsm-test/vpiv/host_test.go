package vpiv

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"
)

// host is the other side of the card in tests: it sends what hosts send, byte by byte as the standard writes it.
type host struct {
	t    *testing.T
	card *Card
}

// newHost makes a card and selects its PIV application.
func newHost(t *testing.T, config Config) *host {
	t.Helper()
	card, err := NewCard(config)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, card}
	h.selectPIV()
	return h
}

func (h *host) selectPIV() []byte { return h.ok("00 A4 04 00 05 A0 00 00 03 08") }

// unhex reads hexadecimal with spaces.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// raw sends one APDU and returns data and status word.
func (h *host) raw(apdu []byte) ([]byte, status) {
	h.t.Helper()
	response := h.card.Transmit(apdu)
	if len(response) < 2 {
		h.t.Fatalf("response to % X has %d bytes", apdu, len(response))
	}
	n := len(response) - 2
	return response[:n], status(response[n])<<8 | status(response[n+1])
}

// send sends header and data, chained where the data is long, and collects the whole response.
func (h *host) send(ins, p1, p2 byte, data []byte) ([]byte, status) {
	h.t.Helper()
	for len(data) > 255 {
		piece := append([]byte{claChained, ins, p1, p2, 255}, data[:255]...)
		if out, sw := h.raw(piece); sw != swOK || len(out) != 0 {
			return nil, sw
		}
		data = data[255:]
	}
	out, sw := h.raw(append([]byte{0, ins, p1, p2, byte(len(data))}, data...))
	all := bytes.Clone(out)
	for sw&0xFF00 == swMoreData {
		out, sw = h.raw([]byte{0, insGetResponse, 0, 0, 0})
		all = append(all, out...)
	}
	return all, sw
}

// ok sends an APDU in hexadecimal, which has to succeed, and returns its data.
func (h *host) ok(apdu string) []byte {
	h.t.Helper()
	data, sw := h.raw(unhex(h.t, apdu))
	if sw != swOK {
		h.t.Fatalf("%s: status %v", apdu, sw)
	}
	return data
}

// want sends an APDU in hexadecimal, which has to end in that status word.
func (h *host) want(sw status, apdu string) {
	h.t.Helper()
	if _, have := h.raw(unhex(h.t, apdu)); have != sw {
		h.t.Fatalf("%s: status %v, want %v", apdu, have, sw)
	}
}

// do sends data that has to be taken.
func (h *host) do(ins, p1, p2 byte, data []byte) []byte {
	h.t.Helper()
	out, sw := h.send(ins, p1, p2, data)
	if sw != swOK {
		h.t.Fatalf("%02X %02X %02X: status %v", ins, p1, p2, sw)
	}
	return out
}

// verify sends a PIN.
func (h *host) verify(pin string) status {
	h.t.Helper()
	_, sw := h.send(insVerify, 0, refPIN, pad(pin))
	return sw
}

// pad pads a PIN or PUK.
func pad(text string) []byte {
	return append([]byte(text), bytes.Repeat([]byte{0xFF}, 8-len(text))...)
}

// pairs is two PINs or PUKs one after the other.
func pairs(a, b string) []byte { return append(pad(a), pad(b)...) }

// hostCipher is the host's copy of the management key.
func hostCipher(t *testing.T, algorithm byte, key []byte) cipher.Block {
	t.Helper()
	block, err := aes.NewCipher(key)
	if algorithm == AlgorithmTripleDES {
		block, err = des.NewTripleDESCipher(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// authenticate does mutual authentication with the management key and returns the status of its last step.
func (h *host) authenticate(algorithm byte, key []byte) status {
	h.t.Helper()
	block := hostCipher(h.t, algorithm, key)
	sealed := h.object(tagWitness, h.do(insAuthenticate, algorithm, refManagement, []byte{0x7C, 2, 0x80, 0}))
	witness := make([]byte, block.BlockSize())
	block.Decrypt(witness, sealed)
	challenge := make([]byte, block.BlockSize())
	rand.Read(challenge)
	body := appendTLV(encodeTLV(tagWitness, witness), tagChallenge, challenge)
	out, sw := h.send(insAuthenticate, algorithm, refManagement, encodeTLV(tagDynamic, body))
	if sw != swOK {
		return sw
	}
	if !bytes.Equal(h.object(tagResponse, out), encrypt(block, challenge)) {
		h.t.Fatal("the card did not prove that it has the management key")
	}
	return sw
}

// manage authenticates a card with the factory's management key.
func (h *host) manage() {
	h.t.Helper()
	if sw := h.authenticate(h.card.state.management.algorithm, defaultManagementKey); sw != swOK {
		h.t.Fatalf("management key: %v", sw)
	}
}

// object returns one object of a dynamic authentication template.
func (h *host) object(tag uint32, data []byte) []byte {
	h.t.Helper()
	objects, ok := parseTemplate(tagDynamic, data)
	value, has := findTLV(objects, tag)
	if !ok || !has {
		h.t.Fatalf("no object %02X in % X", tag, data)
	}
	return value
}

// generate makes a key and returns the objects of its public half. The card must be authenticated.
func (h *host) generate(slot, algorithm byte, policies ...byte) []tlv {
	h.t.Helper()
	body := encodeTLV(tagAlgorithm, []byte{algorithm})
	if len(policies) == 2 {
		body = appendTLV(body, tagPINPolicy, policies[:1])
		body = appendTLV(body, tagTouchPolicy, policies[1:])
	}
	objects, ok := parseTemplate(tagPublicKey, h.do(insGenerate, 0, slot, encodeTLV(tagCryptoMechanism, body)))
	if !ok {
		h.t.Fatal("malformed public key")
	}
	return objects
}

// use asks a key to answer a challenge (tag 81) or an exponentiation (85).
func (h *host) use(slot, algorithm byte, tag uint32, data []byte) ([]byte, status) {
	h.t.Helper()
	body := appendTLV(encodeTLV(tagResponse, nil), tag, data)
	out, sw := h.send(insAuthenticate, algorithm, slot, encodeTLV(tagDynamic, body))
	if sw != swOK {
		return nil, sw
	}
	return h.object(tagResponse, out), swOK
}
