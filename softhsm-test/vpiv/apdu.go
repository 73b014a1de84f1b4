package vpiv

import (
	"encoding/binary"
	"fmt"
)

// status is the status word SW1-SW2 that ends every response (ISO/IEC 7816-4, section 5.6).
type status uint16

const (
	swOK            status = 0x9000
	swMoreData      status = 0x6100 // plus the number of bytes still to be had by GET RESPONSE
	swTriesLeft     status = 0x63C0 // plus the number of tries left
	swWrongLength   status = 0x6700
	swSecureMessage status = 0x6882
	swSecurity      status = 0x6982
	swBlocked       status = 0x6983
	swConditions    status = 0x6985
	swWrongData     status = 0x6A80
	swFunction      status = 0x6A81
	swNotFound      status = 0x6A82
	swMemory        status = 0x6A84
	swWrongP1P2     status = 0x6A86
	swNoReference   status = 0x6A88
	swWrongINS      status = 0x6D00
	swWrongCLA      status = 0x6E00
)

// append returns data followed by the status word.
func (sw status) append(data []byte) []byte {
	return binary.BigEndian.AppendUint16(data, uint16(sw))
}

// String returns the status word in hexadecimal, as the standards write it.
func (sw status) String() string { return fmt.Sprintf("%04X", uint16(sw)) }

// The instruction bytes the card knows: SP 800-73-4 part 2, section 3, and from insMoveKey on the extensions.
const (
	insVerify          = 0x20
	insChangeReference = 0x24
	insResetRetry      = 0x2C
	insGenerate        = 0x47
	insAuthenticate    = 0x87
	insSelect          = 0xA4
	insGetResponse     = 0xC0
	insGetData         = 0xCB
	insPutData         = 0xDB
	insMoveKey         = 0xF6
	insGetMetadata     = 0xF7
	insGetSerial       = 0xF8
	insAttest          = 0xF9
	insSetRetries      = 0xFA
	insReset           = 0xFB
	insGetVersion      = 0xFD
	insImport          = 0xFE
	insSetManagement   = 0xFF
)

// claChained is the bit of the class byte that says more of the command follows (ISO/IEC 7816-4, section 5.4.1).
const claChained = 0x10

// shortResponse is how many bytes a response may have when the command does not ask for an extended one.
const shortResponse = 256

// command is a parsed command APDU.
type command struct {
	cla, ins, p1, p2 byte
	data             []byte // aliases the APDU
	expected         int    // Ne: how many bytes of response data the host takes at once
}

// chained reports whether the command is a piece of a longer one, and not its last.
func (cmd command) chained() bool { return cmd.cla&claChained != 0 }

// sameHeader reports whether both commands may be pieces of one chain.
func (cmd command) sameHeader(other command) bool {
	return cmd.ins == other.ins && cmd.p1 == other.p1 && cmd.p2 == other.p2
}

// parseCommand takes a command APDU apart: ISO/IEC 7816-4, section 5.2, cases 1 to 4, short and extended. A missing Le
// counts as the largest short one, because hosts over T=1 leave it out and still want the response. The answer to
// anything else is swWrongLength.
func parseCommand(apdu []byte) (command, status) {
	if len(apdu) < 4 {
		return command{}, swWrongLength
	}
	cmd := command{cla: apdu[0], ins: apdu[1], p1: apdu[2], p2: apdu[3], expected: shortResponse}
	body := apdu[4:]
	switch {
	case len(body) == 0:
		return cmd, swOK
	case len(body) == 1:
		cmd.expected = shortLe(body[0])
		return cmd, swOK
	case body[0] == 0:
		return parseExtended(cmd, body[1:])
	}
	n, rest := int(body[0]), body[1:]
	switch len(rest) {
	case n:
	case n + 1:
		cmd.expected = shortLe(rest[n])
	default:
		return command{}, swWrongLength
	}
	cmd.data = rest[:n]
	return cmd, swOK
}

// parseExtended parses what follows the zero byte that opens an extended Lc or Le.
func parseExtended(cmd command, body []byte) (command, status) {
	if len(body) < 2 {
		return command{}, swWrongLength
	}
	n, rest := int(binary.BigEndian.Uint16(body)), body[2:]
	if len(rest) == 0 {
		cmd.expected = extendedLe(n)
		return cmd, swOK
	}
	switch {
	case n == 0:
		return command{}, swWrongLength
	case len(rest) == n:
	case len(rest) == n+2:
		cmd.expected = extendedLe(int(binary.BigEndian.Uint16(rest[n:])))
	default:
		return command{}, swWrongLength
	}
	cmd.data = rest[:n]
	return cmd, swOK
}

func shortLe(b byte) int {
	if b == 0 {
		return shortResponse
	}
	return int(b)
}

func extendedLe(n int) int {
	if n == 0 {
		return 1 << 16
	}
	return n
}
