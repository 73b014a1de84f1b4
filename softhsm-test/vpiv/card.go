package vpiv

import (
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
)

// The secrets and the version of a card that the Config leaves open: those a new card comes with.
const (
	DefaultPIN = "123456"
	DefaultPUK = "12345678"
)

// defaultTries is how many wrong PINs or PUKs in a row block a new card.
const defaultTries = 3

// Config says what card to make. The zero value is a new 5.7.1 card with the serial number 0 and factory secrets.
type Config struct {
	Serial     uint32
	Version    [3]byte // firmware version: what the card can do follows from it; zero means 5.7.1
	FormFactor byte    // as the management application and attestation report it; zero means 1, USB-A
	PIN        string  // 6 to 8 bytes; empty means DefaultPIN
	PUK        string  // 6 to 8 bytes; empty means DefaultPUK

	// ManagementKey is the key of reference 9B: 24 bytes, from version 5.4 on also 16 or 32. Nil means the factory's, the
	// bytes 1 to 8 three times.
	ManagementKey []byte
	// ManagementAlgorithm is AlgorithmTripleDES or one of the AES ones. Zero means what the factory sets: AES-192 from
	// version 5.7 on, else Triple-DES; for keys of 16 and 32 bytes the AES of that size.
	ManagementAlgorithm byte

	// TouchRefused makes the card behave as if nobody ever touched it: what needs a touch ends in 6982. See
	// [Card.SetTouch].
	TouchRefused bool

	// CA issues the card's attestation certificate. Nil means a CA of its own, whose certificate is
	// [Card.AttestationRoot].
	CA *CA
}

// Card is one virtual PIV card. Its methods may be called from several goroutines at once.
type Card struct {
	wire sync.Mutex // held for a whole command, also while a fault holds it up: a card does one thing at a time

	mu      sync.Mutex // guards what follows, while a command is executed
	state   state
	session session
	path    string // where the state is kept, empty for memory only
	dirty   bool   // the command being executed changed the state
	touched bool   // whether a touch is granted when asked for
	seen    [256]int

	faultsMu sync.Mutex
	faults   []*Injected // guarded by faultsMu
}

// state is what a card keeps without power.
type state struct {
	serial     uint32
	version    [3]byte
	formFactor byte
	pin, puk   reference
	management managementKey
	keys       map[byte]*slotKey // by key reference
	objects    map[uint32][]byte // by tag; values without the outer 53
	root       []byte            // the attestation root's certificate, DER
}

// session is what a card forgets when it is reset or another application is selected.
type session struct {
	app         application
	pinVerified bool
	pinFresh    bool   // the command before this one was a successful VERIFY of the PIN
	managed     bool   // the management key was proven
	witness     []byte // plaintext witness sent for mutual authentication, if one is out
	challenge   []byte // plaintext challenge sent for external authentication, if one is out
	chain       command
	chainData   []byte // data of the pieces of a chained command so far
	chaining    bool
	pending     []byte // response data not yet fetched by GET RESPONSE
}

// NewCard makes a card. It fails only for a Config that no card fits.
func NewCard(config Config) (*Card, error) {
	if config.Version == [3]byte{} {
		config.Version = [3]byte{5, 7, 1}
	}
	if config.FormFactor == 0 {
		config.FormFactor = 1
	}
	pin, err := newReference(config.PIN, DefaultPIN)
	if err != nil {
		return nil, fmt.Errorf("vpiv: PIN: %w", err)
	}
	puk, err := newReference(config.PUK, DefaultPUK)
	if err != nil {
		return nil, fmt.Errorf("vpiv: PUK: %w", err)
	}
	c := &Card{touched: !config.TouchRefused}
	c.state = state{
		serial: config.Serial, version: config.Version, formFactor: config.FormFactor,
		pin: pin, puk: puk,
		keys: make(map[byte]*slotKey), objects: make(map[uint32][]byte),
	}
	c.state.management, err = c.newManagementKey(config.ManagementAlgorithm, config.ManagementKey)
	if err != nil {
		return nil, fmt.Errorf("vpiv: management key: %w", err)
	}
	c.personalise()
	if err := c.installAttestationKey(config.CA); err != nil {
		return nil, fmt.Errorf("vpiv: attestation key: %w", err)
	}
	return c, nil
}

// Serial returns the card's serial number.
func (c *Card) Serial() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.serial
}

// SetTouch says whether somebody touches the card when it waits for a touch. Without one, what needs a touch ends in
// 6982 at once: the virtual card does not wait for the fifteen seconds a real one does.
func (c *Card) SetTouch(granted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touched = granted
}

// PINTries returns how many wrong PINs the card still takes.
func (c *Card) PINTries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.pin.tries
}

// PUKTries returns how many wrong PUKs the card still takes.
func (c *Card) PUKTries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.puk.tries
}

// Seen returns how many commands with that instruction byte the card was sent since it was made. Of a chained command
// only the last piece counts.
func (c *Card) Seen(ins byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[ins]
}

// AttestationRoot returns the certificate of the CA that issued the card's attestation certificate.
func (c *Card) AttestationRoot() (*x509.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return x509.ParseCertificate(c.state.root)
}

// Reset does what removing the power and giving it again does: what was verified no longer is, no application is
// selected. It is not the RESET command.
func (c *Card) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = session{}
}

// Transmit gives the card a command APDU and returns its response APDU. It never fails: an error is a status word. It
// returns nil where a fault made the card not answer. See ISO/IEC 7816-4, section 5.1, for both forms.
func (c *Card) Transmit(apdu []byte) []byte {
	response, _ := c.exchange(apdu, nil)
	return response
}

// execute runs one command and returns the response APDU.
func (c *Card) execute(apdu []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, sw := c.process(apdu)
	if c.dirty {
		c.dirty = false
		if err := c.keep(); err != nil {
			// A card that cannot write its memory says so; what it executed is lost with the power.
			return swMemory.append(nil)
		}
	}
	return sw.append(data)
}

// process parses a command, joins chained ones, runs it and cuts its response into pieces.
func (c *Card) process(apdu []byte) ([]byte, status) {
	cmd, sw := parseCommand(apdu)
	if sw != swOK {
		return nil, sw
	}
	switch cmd.cla &^ claChained {
	case 0x00:
	case 0x0C, 0x08, 0x04:
		return nil, swSecureMessage
	default:
		return nil, swWrongCLA
	}
	if !cmd.chained() {
		c.seen[cmd.ins]++
	}
	if cmd.ins == insGetResponse {
		return c.getResponse(cmd)
	}
	c.session.pending = nil
	cmd, whole, sw := c.joinChain(cmd)
	if !whole {
		return nil, sw
	}
	data, sw := c.dispatch(cmd)
	if sw != swOK {
		return nil, sw
	}
	return c.cutResponse(data, cmd.expected)
}

// maxCommand bounds the data of a chained command: the largest object and what wraps it fit, and so does a message for
// Ed25519 as long as a certificate request.
const maxCommand = 4096

// joinChain collects the pieces of a chained command. A command with another header abandons what was collected: a host
// that died in the middle must not spoil the next one's first command.
func (c *Card) joinChain(cmd command) (joined command, whole bool, sw status) {
	s := &c.session
	if s.chaining && !s.chain.sameHeader(cmd) {
		s.chaining, s.chainData = false, nil
	}
	if len(s.chainData)+len(cmd.data) > maxCommand {
		s.chaining, s.chainData = false, nil
		return command{}, false, swWrongLength
	}
	if cmd.chained() {
		s.chaining, s.chain = true, cmd
		s.chainData = append(s.chainData, cmd.data...)
		return command{}, false, swOK
	}
	if s.chaining {
		cmd.data = append(s.chainData, cmd.data...)
		s.chaining, s.chainData = false, nil
	}
	return cmd, true, swOK
}

// cutResponse returns what of data the host takes at once and keeps the rest for GET RESPONSE.
func (c *Card) cutResponse(data []byte, expected int) ([]byte, status) {
	if len(data) <= expected {
		return data, swOK
	}
	c.session.pending = slices.Clone(data[expected:])
	left := len(c.session.pending)
	if left > 0xFF {
		left = 0 // "256 or more"
	}
	return data[:expected], swMoreData | status(left)
}

// getResponse is GET RESPONSE: ISO/IEC 7816-4, section 11.7.1.
func (c *Card) getResponse(cmd command) ([]byte, status) {
	if cmd.p1 != 0 || cmd.p2 != 0 {
		return nil, swWrongP1P2
	}
	if len(c.session.pending) == 0 {
		return nil, swConditions
	}
	data := c.session.pending
	c.session.pending = nil
	return c.cutResponse(data, cmd.expected)
}

// atLeast reports whether the card's version is major.minor or later.
func (c *Card) atLeast(major, minor byte) bool {
	v := c.state.version
	return v[0] > major || v[0] == major && v[1] >= minor
}
