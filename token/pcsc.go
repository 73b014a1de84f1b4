//go:build cgo && !nopiv

package token

// #cgo linux pkg-config: libpcsclite
// #cgo darwin LDFLAGS: -framework PCSC
// #include <stdint.h>
// #include <stdlib.h>
// #include <PCSC/winscard.h>
// #include <PCSC/wintypes.h>
//
// // The types of PC/SC have other widths on other systems; these wrappers have one.
// typedef struct { SCARDCONTEXT context; SCARDHANDLE card; } hf_card;
//
// static uint32_t hf_readers(char *names, uint32_t *len) {
//   SCARDCONTEXT context;
//   uint32_t rc = SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, &context);
//   if (rc != 0) return rc;
//   DWORD n = *len;
//   rc = SCardListReaders(context, NULL, names, &n);
//   *len = n;
//   SCardReleaseContext(context);
//   return rc;
// }
//
// static uint32_t hf_connect(const char *reader, hf_card *c) {
//   uint32_t rc = SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, &c->context);
//   if (rc != 0) return rc;
//   DWORD protocol;
//   rc = SCardConnect(c->context, reader, SCARD_SHARE_EXCLUSIVE, SCARD_PROTOCOL_T1, &c->card, &protocol);
//   if (rc != 0) SCardReleaseContext(c->context);
//   return rc;
// }
//
// static uint32_t hf_transmit(hf_card *c, const uint8_t *command, uint32_t n, uint8_t *response, uint32_t *len) {
//   DWORD m = *len;
//   uint32_t rc = SCardTransmit(c->card, SCARD_PCI_T1, command, n, NULL, response, &m);
//   *len = m;
//   return rc;
// }
//
// static uint32_t hf_disconnect(hf_card *c, int reset) {
//   uint32_t rc = SCardDisconnect(c->card, reset ? SCARD_RESET_CARD : SCARD_LEAVE_CARD);
//   uint32_t rc2 = SCardReleaseContext(c->context);
//   return rc != 0 ? rc : rc2;
// }
import "C"

import (
	"bytes"
	"fmt"
	"unsafe"
)

// This file is a small connection of our own to PC/SC, for what piv-go leaves out:
//   - piv.Open keeps the reader locked for the life of the process when what is in the reader does not answer as a PIV
//     card, so that is found out here first;
//   - it cannot reset the card, which alone makes it forget that our PIN was verified;
//   - it does not return what GET METADATA says of PIN, PUK and management key, nor certificates that crypto/x509
//     does not parse.

// pcscError is a return code of PC/SC.
type pcscError uint32

// The return codes that are told apart.
const (
	pcscUnknownReader pcscError = 0x80100009
	pcscSharing       pcscError = 0x8010000B
	pcscNoCard        pcscError = 0x8010000C
	pcscNotTransacted pcscError = 0x80100016
	pcscNoService     pcscError = 0x8010001D
	pcscStopped       pcscError = 0x8010001E
	pcscNoReaders     pcscError = 0x8010002E
	pcscUnresponsive  pcscError = 0x80100066
	pcscUnpowered     pcscError = 0x80100067
	pcscRemoved       pcscError = 0x80100069
)

var pcscTexts = map[pcscError]string{
	pcscUnknownReader: "the reader is gone",
	pcscSharing:       "another program is using the card",
	pcscNoCard:        "no card is in the reader",
	pcscNotTransacted: "the card was removed",
	pcscNoService:     "the PC/SC daemon is not running; start pcscd",
	pcscStopped:       "the PC/SC daemon was stopped; start pcscd",
	pcscNoReaders:     "no smart card reader is connected",
	pcscUnresponsive:  "the card in the reader does not answer; is it the right way round?",
	pcscUnpowered:     "the card in the reader has no power",
	pcscRemoved:       "the card was removed",
}

func (e pcscError) Error() string {
	if text, ok := pcscTexts[e]; ok {
		return text
	}
	return fmt.Sprintf("PC/SC error 0x%08X", uint32(e))
}

func pcscCheck(rc C.uint32_t) error {
	if rc == 0 {
		return nil
	}
	return pcscError(rc)
}

// readers lists the names of the PC/SC readers.
func readers() ([]string, error) {
	var names [8192]byte
	n := C.uint32_t(len(names))
	if err := pcscCheck(C.hf_readers((*C.char)(unsafe.Pointer(&names[0])), &n)); err != nil {
		return nil, err
	}
	var list []string
	for name := range bytes.SplitSeq(names[:min(int(n), len(names))], []byte{0}) {
		if len(name) > 0 {
			list = append(list, string(name))
		}
	}
	return list, nil
}

// rawCard is an exclusive connection to a card on which the PIV application is selected and nothing is verified.
type rawCard struct{ card C.hf_card }

// connectRaw connects to the card in reader and selects its PIV application.
func connectRaw(reader string) (*rawCard, error) {
	name := C.CString(reader)
	defer C.free(unsafe.Pointer(name))
	c := &rawCard{}
	if err := pcscCheck(C.hf_connect(name, &c.card)); err != nil {
		return nil, err
	}
	selectPIV := []byte{0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08}
	if _, err := c.transmit(selectPIV); err != nil {
		_ = c.close(false)
		return nil, fmt.Errorf("select the PIV application: %w", err)
	}
	return c, nil
}

// close disconnects; with reset the card forgets what was verified.
func (c *rawCard) close(reset bool) error {
	flag := C.int(0)
	if reset {
		flag = 1
	}
	return pcscCheck(C.hf_disconnect(&c.card, flag))
}

// maxResponse bounds what a card may return to one command; the largest object of SP 800-73-4 has 12,710 bytes.
const maxResponse = 1 << 16

// transmit sends a command and fetches its whole response. Any status but 9000 is a statusError.
func (c *rawCard) transmit(command []byte) ([]byte, error) {
	var out []byte
	for {
		var response [4096]byte
		n := C.uint32_t(len(response))
		rc := C.hf_transmit(&c.card, (*C.uint8_t)(unsafe.Pointer(&command[0])), C.uint32_t(len(command)),
			(*C.uint8_t)(unsafe.Pointer(&response[0])), &n)
		if err := pcscCheck(rc); err != nil {
			return nil, err
		}
		if n < 2 || len(out)+int(n) > maxResponse {
			return nil, pcscRemoved // what pcscd returns when the card goes in the middle of a command
		}
		out = append(out, response[:n-2]...)
		switch sw1, sw2 := response[n-2], response[n-1]; {
		case sw1 == 0x90 && sw2 == 0x00:
			return out, nil
		case sw1 == 0x61:
			command = []byte{0x00, 0xC0, 0x00, 0x00, sw2}
		default:
			return nil, statusError(uint16(sw1)<<8 | uint16(sw2))
		}
	}
}

// The commands that are sent here and not by piv-go.
func getMetadata(reference byte) []byte { return []byte{0x00, 0xF7, 0x00, reference, 0x00} }
func attest(slot byte) []byte           { return []byte{0x00, 0xF9, slot, 0x00, 0x00} }
func getObject(tag uint32) []byte {
	return []byte{0x00, 0xCB, 0x3F, 0xFF, 0x05, 0x5C, 0x03, byte(tag >> 16), byte(tag >> 8), byte(tag), 0x00}
}
