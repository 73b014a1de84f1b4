package vpiv

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// application is one of the applications on the card; commands go to the selected one.
type application uint8

const (
	appNone application = iota
	appPIV
	appOTP
	appManagement
)

// The application identifiers. A host may leave off bytes on the right of PIV's, down to the registered provider's five
// (SP 800-73-4 part 2, section 3.1.1).
var (
	aidPIV        = []byte{0xA0, 0, 0, 0x03, 0x08, 0, 0, 0x10, 0, 0x01, 0}
	aidOTP        = []byte{0xA0, 0, 0, 0x05, 0x27, 0x20, 0x01, 0x01}
	aidManagement = []byte{0xA0, 0, 0, 0x05, 0x27, 0x47, 0x11, 0x17}
)

// dispatch hands a whole command to the selected application.
func (c *Card) dispatch(cmd command) ([]byte, status) {
	if cmd.ins == insSelect {
		return c.selectApplication(cmd)
	}
	switch c.session.app {
	case appPIV:
		return c.piv(cmd)
	case appOTP:
		return c.otp(cmd)
	case appManagement:
		return c.manage(cmd)
	}
	return nil, swWrongINS
}

// selectApplication is SELECT. SP 800-73-4 keeps what was verified when PIV is selected again; the cards with the
// extensions forget it, and so does this one, because that is the stricter for hosts.
func (c *Card) selectApplication(cmd command) ([]byte, status) {
	if cmd.p1 != 0x04 || cmd.p2 != 0x00 {
		return nil, swWrongP1P2
	}
	app := c.applicationOf(cmd.data)
	if app == appNone {
		return nil, swNotFound // the application selected before stays selected
	}
	c.session = session{app: app}
	switch app {
	case appOTP:
		return c.otpStatus(), swOK
	case appManagement:
		v := c.state.version
		return fmt.Appendf(nil, "Virtual mgr - FW version %d.%d.%d", v[0], v[1], v[2]), swOK
	}
	return pivTemplate(), swOK
}

func (c *Card) applicationOf(aid []byte) application {
	switch {
	case len(aid) >= 5 && bytes.HasPrefix(aidPIV, aid):
		return appPIV
	case bytes.Equal(aid, aidOTP):
		return appOTP
	case bytes.Equal(aid, aidManagement) && c.atLeast(4, 1):
		return appManagement
	}
	return appNone
}

// pivTemplate is the application property template: SP 800-73-4 part 2, table 3.
func pivTemplate() []byte {
	body := appendTLV(nil, 0x4F, aidPIV[5:])
	body = appendTLV(body, 0x79, encodeTLV(0x4F, aidPIV[:5]))
	body = appendTLV(body, 0x50, []byte("Virtual PIV card"))
	return encodeTLV(0x61, body)
}

// piv runs a command of the PIV card application.
func (c *Card) piv(cmd command) ([]byte, status) {
	fresh := c.session.pinFresh
	if cmd.ins != insVerify {
		c.session.pinFresh = false
	}
	switch cmd.ins {
	case insVerify:
		return nil, c.verify(cmd)
	case insChangeReference:
		return nil, c.changeReference(cmd)
	case insResetRetry:
		return nil, c.resetRetryCounter(cmd)
	case insGetData:
		return c.getData(cmd)
	case insPutData:
		return nil, c.putData(cmd)
	case insAuthenticate:
		return c.generalAuthenticate(cmd, fresh)
	case insGenerate:
		return c.generate(cmd)
	}
	return c.extension(cmd)
}

// extension runs a command that SP 800-73-4 does not know. A version that does not have it yet answers as cards do that
// never heard of it.
func (c *Card) extension(cmd command) ([]byte, status) {
	switch {
	case cmd.ins == insGetVersion:
		return c.state.version[:], swOK
	case cmd.ins == insGetSerial && c.atLeast(5, 0):
		return binary.BigEndian.AppendUint32(nil, c.state.serial), swOK
	case cmd.ins == insSetManagement:
		return nil, c.setManagementKey(cmd)
	case cmd.ins == insImport:
		return nil, c.importKey(cmd)
	case cmd.ins == insSetRetries:
		return nil, c.setRetries(cmd)
	case cmd.ins == insReset:
		return nil, c.factoryReset(cmd)
	case cmd.ins == insAttest && c.atLeast(4, 3):
		return c.attest(cmd)
	case cmd.ins == insGetMetadata && c.atLeast(5, 3):
		return c.getMetadata(cmd)
	case cmd.ins == insMoveKey && c.atLeast(5, 7):
		return nil, c.moveKey(cmd)
	}
	return nil, swWrongINS
}

// The one command of the one-time-password application that hosts of old cards need: their serial number.
const (
	insOTP       = 0x01
	otpGetSerial = 0x10
	otpGetStatus = 0x03
)

func (c *Card) otp(cmd command) ([]byte, status) {
	switch {
	case cmd.ins == insOTP && cmd.p1 == otpGetSerial:
		return binary.BigEndian.AppendUint32(nil, c.state.serial), swOK
	case cmd.ins == insOTP && cmd.p1 == otpGetStatus || cmd.ins == otpGetStatus:
		return c.otpStatus(), swOK
	}
	return nil, swWrongINS
}

// otpStatus is the version, the programming sequence and a touch level of two bytes: nothing is programmed.
func (c *Card) otpStatus() []byte {
	v := c.state.version
	return []byte{v[0], v[1], v[2], 0, 0, 0}
}

// insReadConfig is the management application's command that tells what device this is.
const insReadConfig = 0x1D

// capabilityPIV is PIV's bit in the management application's lists of capabilities.
const capabilityPIV = 0x10

func (c *Card) manage(cmd command) ([]byte, status) {
	if cmd.ins != insReadConfig {
		return nil, swWrongINS
	}
	info := appendTLV(nil, 0x01, []byte{0, capabilityPIV}) // supported over USB
	info = appendTLV(info, 0x02, binary.BigEndian.AppendUint32(nil, c.state.serial))
	info = appendTLV(info, 0x03, []byte{0, capabilityPIV}) // enabled over USB
	info = appendTLV(info, 0x04, []byte{c.state.formFactor})
	info = appendTLV(info, 0x05, c.state.version[:])
	return append([]byte{byte(len(info))}, info...), swOK
}
