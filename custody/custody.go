// Package custody is the service that holds keys for others: it knows every key by a name, of whatever backend it is,
// and keeps the record and the device in step. It says which key may be used for what, and never lets a signature out
// that does not verify.
//
// A key is made in an order that survives kill -9 at any moment: what is about to be done to the device is written down
// first, and the record that makes the key exist is written last, before the caller is told. What an interrupted act
// left behind is cleaned up when the service starts or when the device comes back.
//
// A [Service] trusts its devices to keep private keys and its [store.Store] to be its own; it checks that the public key
// of a device's key is the one in the record before it uses the key.
package custody

import (
	"context"
	"crypto"
	"time"

	"holdfast"
	"holdfast/custody/store"

	"go.uber.org/zap"
)

// BackendConfig says how to open a backend.
type BackendConfig struct {
	// Name is what people call the backend. Records are bound to it.
	Name string

	// Kind is the kind of backend, shown while it cannot be opened: "pkcs11", "tpm2" or "piv".
	Kind string

	// Open opens the device. It is called again when the backend is used, with growing pauses, until it succeeds; after
	// ErrAuth or ErrLocked only when a person asks with [Service.UnlockBackend]. It is never called twice at a time, nor
	// after it succeeded. ctx ends when the service is closed. A backend whose PIN was refused is best opened all the
	// same, for only an open one can be given another PIN.
	Open func(ctx context.Context) (holdfast.Backend, error)

	// PIN reads the PIN from where the configuration says, for [Service.UnlockBackend] without one. Nil when it says
	// nothing.
	PIN func(ctx context.Context) (holdfast.Secret, error)

	// VerifyAfterSign makes the service verify every signature of this backend before it is released.
	VerifyAfterSign bool
}

// Config is what a Service is made of. Store and Backends are required.
type Config struct {
	Store    *store.Store // stays open when the service is closed
	Backends []BackendConfig
	Logger   *zap.Logger      // nil logs nothing
	Now      func() time.Time // nil is time.Now
	Version  string           // of Holdfast, for evidence; empty is "devel"
}

// Key is a key in custody.
type Key struct {
	ID        store.ID // for ever, where the name can be used again after the key was destroyed
	Name      string
	Backend   string
	Ref       holdfast.Ref
	Algorithm holdfast.Algorithm
	Purpose   Purpose
	Residence holdfast.Residence // Resident or Wrapped
	Public    crypto.PublicKey   // in the type [holdfast.Key.Public] says; nil for a secret key
	Place     string             // where in the device, as asked for; empty when the backend chose
	PIN       holdfast.PINPolicy
	Touch     holdfast.TouchPolicy
	Adopted   bool      // it was on the device before Holdfast knew it
	State     string    // of its life cycle (SP 800-57); [store.StateActive] is the one there is so far
	Created   time.Time // when it was made, or adopted

	// Destroying is set while a destruction that was begun waits for the device. The key cannot be used any more.
	Destroying bool
}

// CreateKeyRequest says what key to make. Name, Backend, Algorithm and Purpose are required; the rest is as in
// [holdfast.KeySpec].
type CreateKeyRequest struct {
	Name      string
	Backend   string
	Algorithm holdfast.Algorithm
	Purpose   Purpose
	Residence holdfast.Residence
	Place     string
	PIN       holdfast.PINPolicy
	Touch     holdfast.TouchPolicy
}

// AdoptKeyRequest says which key of a device to take into custody. Name, Backend, Ref and Purpose are required.
type AdoptKeyRequest struct {
	Name    string
	Backend string
	Ref     holdfast.Ref // need not be canonical, as long as it names one key
	Purpose Purpose

	// Algorithm is what the key is expected to be; empty expects nothing.
	Algorithm holdfast.Algorithm
}

// ListOptions say which keys to list.
type ListOptions struct {
	Backend string // one backend's; empty for all
	After   string // those after this name; what the call before returned as next
	Limit   int    // at most so many; 0 is DefaultPage, more than MaxPage is MaxPage
}

// The sizes of pages of every list.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// MaxBatch is how many digests SignBatch takes.
const MaxBatch = 1024

// SignResult is what became of one digest of a batch: one of the two is set.
type SignResult struct {
	Signature []byte
	Err       error
}

// BackendStatus is what is known of a backend.
type BackendStatus struct {
	Name            string
	Kind            string
	Available       bool
	Reason          error                  // why it is not available
	Capabilities    *holdfast.Capabilities // nil until it was opened
	PIN             *holdfast.PINStatus    // nil for a device without a PIN or one that does not answer
	KeyCount        int                    // records
	VerifyAfterSign bool
	Seals           bool // the device can seal secrets

	// Concerns are sentences about what a person should look at: keys that must not be believed to be safe, keys that are
	// gone, acts that could not be finished.
	Concerns []string
}

// Inspection is what comparing a device with its records showed.
type Inspection struct {
	Missing  []Key          // records whose key is not on the device
	Changed  []Key          // records whose key on the device has another public key
	Undead   []Undead       // keys that were destroyed and are on the device
	Foreign  []holdfast.Ref // usable keys without a record that were never Holdfast's: normal
	Unusable []error        // objects that Holdfast cannot use
	Pending  []store.Intent // acts that wait to be finished
	Concerns []string       // what the device itself should be looked at for (holdfast.Examiner)
}

// Undead is a key on a device that was destroyed according to the records.
type Undead struct {
	Ref       holdfast.Ref
	Name      string
	Destroyed time.Time
}
