// Package vpiv is a virtual PIV card: NIST SP 800-73-4 and the extensions that USB security keys add to it and that
// piv-go uses (key import, attestation, metadata, management key and retry settings, reset, serial number).
//
// A [Card] answers command APDUs from memory ([Card.Transmit]) and so can be tested and fuzzed without a reader.
// [Card.Serve] speaks the vpcd protocol, by which the card sits in a reader of a real PC/SC daemon; package softhsmtest
// brings such a daemon up. [Card.Inject] makes the card misbehave in the ways cards do.
//
// It is a simulator. Its private keys are ordinary Go keys in the memory of the process, its RSA operation is not
// constant time, its attestation is signed by a root made with the card, and a saved card is a file with private keys in
// it. It keeps nothing secret from whoever runs it and must never hold a key that matters.
//
// Where SP 800-73-4 leaves a choice, or real cards part from it, the card does what the widespread keys with these
// extensions do; the places are marked in the code.
package vpiv
