package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/vpiv"
)

// wholeKey is the key at a persistent handle of a TPM, or in a slot of a card.
const wholeKey = "key"

// listTPM lists the persistent objects in the owner's range of a TPM.
func listTPM(ctx context.Context, t *softhsmtest.TPM) (keys rawKeys, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", t.SocketPath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	const (
		firstOwner = 0x81000000 // TCG Registry of Reserved TPM 2.0 Handles, section 2.3.1
		most       = 254        // in one answer; more than there can be
	)
	command := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: firstOwner, PropertyCount: most}
	answer, err := command.Execute(transport.FromReadWriter(conn))
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	handles, err := answer.CapabilityData.Data.Handles()
	if err != nil {
		return nil, err
	}
	keys = rawKeys{}
	for _, h := range handles.Handle {
		if h>>24 == 0x81 {
			keys[fmt.Sprintf("0x%08x", uint32(h))] = []string{wholeKey}
		}
	}
	return keys, nil
}

var handleInRef = regexp.MustCompile(`[:;]handle=([^;]*)`)

// handleOf returns what listTPM calls the key with a ref.
func handleOf(ref string) (string, error) {
	m := handleInRef.FindStringSubmatch(ref)
	if m == nil {
		return "", fmt.Errorf("the ref %s has no handle", ref)
	}
	return m[1], nil
}

// listCard lists the slots of a card that hold a key or a certificate, without those whose certificate says that the
// daemon destroyed the key: a card cannot delete keys, so they are overwritten. A client that is connected to the card
// would be disturbed.
func listCard(c *vpiv.Card) (rawKeys, error) {
	if _, sw := transmit(c, 0xa4, 0x04, 0x00, []byte{0xa0, 0x00, 0x00, 0x03, 0x08}); sw != swOK { // SELECT
		return nil, fmt.Errorf("SELECT: %04X", sw)
	}
	keys := rawKeys{}
	for i, slot := range cardSlots {
		name, err := readName(c, cardObjects[i])
		if err != nil {
			return nil, fmt.Errorf("certificate of slot %02x: %w", slot, err)
		}
		if name == "holdfast destroyed" {
			continue
		}
		var parts []string
		if name != "" {
			parts = append(parts, certificateOf(name))
		}
		switch _, sw := transmit(c, 0xf7, 0x00, slot, nil); sw { // GET METADATA
		case swOK:
			parts = append(parts, wholeKey)
		case swNotFound, swNoFile:
		default:
			return nil, fmt.Errorf("GET METADATA of slot %02x: %04X", slot, sw)
		}
		if parts != nil {
			keys[fmt.Sprintf("%02x", slot)] = parts
		}
	}
	return keys, nil
}

func certificateOf(name string) string { return fmt.Sprintf("certificate of %q", name) }

// The slots for keys that a person chooses and the objects of their certificates: SP 800-73-4, part 1, table 3.
var cardSlots, cardObjects = func() (slots []byte, objects [][]byte) {
	slots = []byte{0x9a, 0x9c, 0x9d, 0x9e}
	objects = [][]byte{{0x5f, 0xc1, 0x05}, {0x5f, 0xc1, 0x0a}, {0x5f, 0xc1, 0x0b}, {0x5f, 0xc1, 0x01}}
	for i := range byte(20) {
		slots, objects = append(slots, 0x82+i), append(objects, []byte{0x5f, 0xc1, 0x0d + i})
	}
	return slots, objects
}()

// readName returns the common name in the subject of the certificate in an object, empty when there is no certificate.
func readName(c *vpiv.Card, object []byte) (string, error) {
	data, sw := transmit(c, 0xcb, 0x3f, 0xff, append([]byte{0x5c, byte(len(object))}, object...)) // GET DATA
	if sw == swNoFile || sw == swNotFound {
		return "", nil
	}
	if sw != swOK {
		return "", fmt.Errorf("GET DATA: %04X", sw)
	}
	// The certificate is a SEQUENCE of more than 255 bytes; what is around it is not DER.
	start := bytes.Index(data, []byte{0x30, 0x82})
	if start < 0 {
		return "", errors.New("there is no certificate in the object")
	}
	var der asn1.RawValue
	if _, err := asn1.Unmarshal(data[start:], &der); err != nil {
		return "", err
	}
	cert, err := x509.ParseCertificate(der.FullBytes)
	if err != nil {
		return "", err
	}
	return cert.Subject.CommonName, nil
}

// Status words of ISO 7816-4, section 5.6.
const (
	swOK       = 0x9000
	swNoFile   = 0x6a82
	swNotFound = 0x6a88
)

// transmit sends a command with short lengths and collects its answer.
func transmit(c *vpiv.Card, ins, p1, p2 byte, data []byte) (answer []byte, sw uint16) {
	apdu := []byte{0x00, ins, p1, p2}
	if len(data) > 0 {
		apdu = append(append(apdu, byte(len(data))), data...)
	}
	for apdu = append(apdu, 0x00); ; apdu = []byte{0x00, 0xc0, 0x00, 0x00, 0x00} { // GET RESPONSE
		response := c.Transmit(apdu)
		if len(response) < 2 {
			return nil, 0
		}
		n := len(response) - 2
		answer, sw = append(answer, response[:n]...), binary.BigEndian.Uint16(response[n:])
		if sw>>8 != 0x61 { // more to come
			return answer, sw
		}
	}
}

var slotInRef = regexp.MustCompile(`[:;]slot=([^;]*)`)

// slotOf returns what listCard calls the key with a ref.
func slotOf(ref string) (string, error) {
	m := slotInRef.FindStringSubmatch(ref)
	if m == nil {
		return "", fmt.Errorf("the ref %s has no slot", ref)
	}
	return m[1], nil
}
