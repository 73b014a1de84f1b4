// Package hsm makes and uses keys in PKCS#11 tokens: hardware security modules, smart cards with a PKCS#11 module,
// SoftHSM2.
//
// A key is generated in the token with every protecting attribute given and read back, is found again by its CKA_ID, and
// signs through a pool of logged-in sessions. What the module can do is found by trying: it is asked for its mechanisms,
// session keys are made for each curve, and a sacrificial key is attacked in the ways that careless modules allow
// (reading it, wrapping it, copying or changing it to be exportable). A module that gives way is used, and
// Capabilities.Distrust and all evidence say so.
//
// Keys that need not be objects on the token are wrapped: generated in a session, encrypted under an AES key that never
// leaves the token (CKA_WRAP, CKA_UNWRAP), and unwrapped into session objects when they are used.
//
// The package trusts the module to do what PKCS#11 says, as far as it cannot test that. A module runs inside this
// process; one that crashes takes it down.
package hsm

import (
	"context"
	"runtime"
	"time"

	"holdfast"
)

// Config says which token of which module to open and how.
type Config struct {
	// Module is the path of the PKCS#11 module, a shared library. Required.
	Module string

	// TokenLabel and Serial select the token by CK_TOKEN_INFO.label and serialNumber. At least one is required. There is
	// no way to select by slot number: modules renumber slots.
	TokenLabel string
	Serial     string

	// PIN returns the user's PIN; the token owns no copy. It is called when a login is needed: when the token is opened,
	// after it was away, and for keys that ask every time. Nil is right for tokens that need no login or have a PIN pad.
	PIN func(ctx context.Context) (holdfast.Secret, error)

	// SOPIN returns the security officer's PIN. Optional: with it the key-wrapping key is made in a session of the
	// security officer, the only one that PKCS#11 lets set CKA_TRUSTED. It is called once in the life of a token.
	SOPIN func(ctx context.Context) (holdfast.Secret, error)

	// PINMemory remembers refused PINs across restarts. Nil remembers them for the life of the Backend only.
	PINMemory holdfast.PINMemory

	// MaxSessions bounds the sessions used at the same time. 0 means twice the processors, within 4 and 16, and not
	// more than the token has.
	MaxSessions int

	// InitString is passed to C_Initialize as pReserved, where some modules (NSS) take their parameters.
	InitString string

	// Environment is set in the process before C_Initialize, for modules that take their configuration that way
	// (SOFTHSM2_CONF, P11_KIT_SERVER_ADDRESS). Secrets do not belong here.
	Environment map[string]string

	// CallTimeout is how long one operation on the token may take before the token is treated as gone; 0 means 10
	// seconds. Making a key may take 12 times as long.
	CallTimeout time.Duration

	// WrappedCache is how many unwrapped keys are kept in the token as session objects; 0 means 1024.
	WrappedCache int

	// SessionCopies signs with copies of token keys that are session objects (C_CopyObject). SoftHSM2 is 1.4 times as
	// fast with them. A key that another program destroys on the token goes on signing here until the next login, which
	// is why it is off by default.
	SessionCopies bool

	// Modules is shared by all backends in the process that may use the same module. Nil means that no other does.
	Modules *Modules
}

const (
	defaultCallTimeout  = 10 * time.Second
	defaultWrappedCache = 1024
	// generateFactor is how much longer than other calls making a key may take: RSA-4096 takes smart cards minutes.
	generateFactor = 12
	minSessions    = 4
	maxSessions    = 16
)

// withDefaults returns c with zero values replaced, ErrInvalid where something required is missing.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Module == "":
		return c, holdfast.Errorf(holdfast.ErrInvalid, "open",
			"no PKCS#11 module is named: set the path of the module's library")
	case c.TokenLabel == "" && c.Serial == "":
		return c, holdfast.Errorf(holdfast.ErrInvalid, "open", "no token is named: set the token's label or serial number")
	case c.MaxSessions < 0 || c.CallTimeout < 0 || c.WrappedCache < 0:
		return c, holdfast.Errorf(holdfast.ErrInvalid, "open", "the limits of a PKCS#11 backend cannot be negative")
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.WrappedCache == 0 {
		c.WrappedCache = defaultWrappedCache
	}
	return c, nil
}

// sessions returns how many sessions to open on a token that bears at most tokenMax, 0 if it does not say.
func (c Config) sessions(tokenMax int) int {
	n := c.MaxSessions
	if n == 0 {
		n = min(max(2*runtime.GOMAXPROCS(0), minSessions), maxSessions)
	}
	if tokenMax > 0 {
		n = min(n, tokenMax)
	}
	return n
}
