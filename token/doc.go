// Package token is the backend for PIV cards (NIST SP 800-73-4) with the extensions of YubiKeys, over PC/SC.
//
// A key is a slot of the card: its private half was generated there and PIV has no command that reads it. Next to it,
// in the slot's certificate object, lies a certificate that carries the key's identifier, label and algorithm, so that
// the key is found again on any machine, other PIV programs see it, and a slot that holds something else is noticed.
//
// What it trusts: the card to keep private keys, nothing else the card says. Every signature is verified before it is
// released, the public key of a slot is compared with the certificate, and what the card's version promises counts only
// until the card refuses it.
//
// What it takes care of: a PIN is given to the card once, never after a refusal and never as the last try, except by a
// person ([Backend.Unlock]); a slot that Holdfast did not fill is never overwritten; the card is released when idle, and
// reset then, so that other programs can use it but not with our PIN.
//
// The package needs cgo and the PC/SC library. Built without cgo or with the tag nopiv, Open returns ErrUnsupported.
package token
