package vpiv

import (
	"slices"
	"sync/atomic"
)

// Fault is a way for the card to misbehave: which commands it strikes and what it does to them. Only whole commands are
// struck; of a chained one the last piece.
type Fault struct {
	INS     byte   // the instruction byte to strike; zero strikes any
	Slot    byte   // the key reference to strike (P1 of ATTEST, else P2); zero strikes any
	After   int    // how many matching commands to let through first
	Lasting bool   // strike every matching command from then on, not only one
	Effect  Effect // what happens; must not be nil
}

// Effect is what a fault does to a command: one of [Answer], [Pull], [Cut], [BlockPIN], [WrongAnswer], [Hold], [Truncate].
type Effect interface{ strike(x *exchange) }

// Answer is a status word the card answers with instead of doing anything: Answer(0x6D00).
type Answer uint16

// Pull takes the card out of the reader: the command gets no answer and the card's connection ends. The card stays out
// until it is inserted again.
type Pull struct {
	// Executed says that the command took effect before; false that it did not.
	Executed bool
}

// Cut breaks the transport in the middle of the answer: the command took effect, half of the answer arrives.
type Cut struct{}

// BlockPIN sets the PIN's retry counter to zero, as if somebody had typed wrong PINs, and lets the command go on.
type BlockPIN struct{}

// WrongAnswer lets the command succeed and changes the last byte of what it returns: a signature that does not verify, a
// public key that is another or none. An answer without data stays as it is.
type WrongAnswer struct{}

// Hold holds the command up until Release is closed or delivers, then lets it go on. A card pulled meanwhile does not
// execute it.
type Hold struct {
	Entered chan<- struct{} // when not nil, told that a command is being held; it must have room for it
	Release <-chan struct{}
}

// Truncate lets the command take effect and sends only that many first bytes of the response. With none the card leaves
// its reader, since the vpcd protocol has no empty response.
type Truncate int

// Injected is a fault in a card.
type Injected struct {
	fault   Fault
	card    *Card
	matched int // guarded by card.faultsMu
	spent   bool
	struck  atomic.Int64
}

// Inject makes the card misbehave. Of several faults that match a command the one injected first strikes.
func (c *Card) Inject(fault Fault) *Injected {
	c.faultsMu.Lock()
	defer c.faultsMu.Unlock()
	f := &Injected{fault: fault, card: c}
	c.faults = append(c.faults, f)
	return f
}

// Struck returns how many commands the fault has struck so far.
func (f *Injected) Struck() int { return int(f.struck.Load()) }

// Lift takes the fault away. What it is holding up stays held.
func (f *Injected) Lift() {
	f.card.faultsMu.Lock()
	defer f.card.faultsMu.Unlock()
	f.card.faults = slices.DeleteFunc(f.card.faults, func(g *Injected) bool { return g == f })
}

// delivery says how an exchange ended for the transport.
type delivery uint8

const (
	delivered delivery = iota
	pulled             // no answer, and the card is gone
	cut                // half an answer, and the card is gone
)

// exchange is one command on its way through the card.
type exchange struct {
	card     *Card
	apdu     []byte
	gone     <-chan struct{} // closed when the card is taken out of the reader; nil when there is no reader
	response []byte
	end      delivery
}

// exchange gives the card a command, past whatever fault strikes it.
func (c *Card) exchange(apdu []byte, gone <-chan struct{}) ([]byte, delivery) {
	c.wire.Lock()
	defer c.wire.Unlock()
	x := &exchange{card: c, apdu: apdu, gone: gone}
	if fault := c.struckBy(apdu); fault != nil {
		fault.Effect.strike(x)
	} else {
		x.run()
	}
	return x.response, x.end
}

// struckBy returns the fault that strikes this command, nil if none does.
func (c *Card) struckBy(apdu []byte) *Fault {
	cmd, sw := parseCommand(apdu)
	if sw != swOK || cmd.chained() {
		return nil
	}
	c.faultsMu.Lock()
	defer c.faultsMu.Unlock()
	for _, f := range c.faults {
		if f.spent || !f.fault.matches(cmd) {
			continue
		}
		f.matched++
		if f.matched <= f.fault.After {
			continue
		}
		f.spent = !f.fault.Lasting
		f.struck.Add(1)
		return &f.fault
	}
	return nil
}

func (f *Fault) matches(cmd command) bool {
	slot := cmd.p2
	if cmd.ins == insAttest {
		slot = cmd.p1
	}
	return (f.INS == 0 || f.INS == cmd.ins) && (f.Slot == 0 || f.Slot == slot)
}

func (x *exchange) run() { x.response = x.card.execute(x.apdu) }

func (a Answer) strike(x *exchange) { x.response = status(a).append(nil) }

func (p Pull) strike(x *exchange) {
	if p.Executed {
		x.run()
	}
	x.response, x.end = nil, pulled
}

func (Cut) strike(x *exchange) {
	x.run()
	x.end = cut
}

func (BlockPIN) strike(x *exchange) {
	x.card.blockPIN()
	x.run()
}

func (WrongAnswer) strike(x *exchange) {
	x.run()
	if n := len(x.response); n > 2 {
		x.response[n-3] ^= 0x01
	}
}

func (h Hold) strike(x *exchange) {
	if h.Entered != nil {
		h.Entered <- struct{}{}
	}
	select {
	case <-h.Release:
		x.run()
	case <-x.gone:
		x.end = pulled
	}
}

func (n Truncate) strike(x *exchange) {
	x.run()
	x.response = x.response[:min(max(int(n), 0), len(x.response))]
}

func (c *Card) blockPIN() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.pin.tries, c.session.pinVerified, c.session.pinFresh = 0, false, false
	c.dirty = true
}
