package token

import (
	"context"
	"fmt"
	"time"

	"holdfast"
)

// Kind is Capabilities.Kind of this backend, and the scheme of its refs.
const Kind = "piv"

// Config says which card to open and how to treat it. Reader and Serial may both be empty when there is only one card.
type Config struct {
	// Reader is a part of the PC/SC reader's name; empty means any reader.
	Reader string

	// Serial pins the backend to one card. 0 takes the card that is there when the backend is opened, and is then pinned
	// to that one.
	Serial uint32

	// PIN returns the card's PIN, 1 to 8 bytes (SP 800-73-4 has 6 to 8 digits). It is asked when the card wants a PIN,
	// at most once per connection, before each use of keys with PINAlways. Nil means that only a person gives the PIN, by
	// Unlock.
	PIN func(ctx context.Context) (holdfast.Secret, error)

	// PINMemory remembers refused PINs across restarts; nil remembers them as long as the Backend lives.
	PINMemory holdfast.PINMemory

	// ManagementKey says where the card's management key is kept, which the card wants before it makes a key.
	ManagementKey ManagementKeyPlace

	// Secrets is the daemon's secret store. Needed for ManagementKeyInStore unless RotateManagementKey is RotateNever.
	// The name of a secret is [ManagementKeyName] or that with "-next" appended; the value is the raw key.
	Secrets SecretStore

	// RotateManagementKey says when the management key is replaced by a random one.
	RotateManagementKey RotatePolicy

	// Environment is set in the process before the first PC/SC call, for PCSCLITE_CSOCK_NAME. The PC/SC library reads it
	// once per process, so all backends of a process have to agree.
	Environment map[string]string

	// Idle is how long an unused card stays connected. While it is connected no other program can use it. 0 means 2
	// seconds.
	Idle time.Duration
}

const defaultIdle = 2 * time.Second

// ManagementKeyPlace says where a card's management key is kept.
type ManagementKeyPlace uint8

// The places.
const (
	// ManagementKeyInStore keeps it in Config.Secrets. An owner who has set the card's key already puts it there under
	// its name.
	ManagementKeyInStore ManagementKeyPlace = iota

	// ManagementKeyOnCard keeps it on the card, readable with the PIN only (the printed information object, 5FC109). It
	// has 24 bytes then: AES-192, or 3DES on cards older than 5.4.
	ManagementKeyOnCard
)

// RotatePolicy says when a management key is replaced.
type RotatePolicy uint8

// The policies.
const (
	RotateDefaultKey RotatePolicy = iota // at the first use, when the card still has the one every such card is sold with
	RotateNever                          // never: the key is used as it is
)

// SecretStore keeps secrets for the daemon.
type SecretStore interface {
	// LoadSecret returns the secret called name, and whether there is one.
	LoadSecret(ctx context.Context, name string) (holdfast.Secret, bool, error)

	// StoreSecret stores or replaces the secret called name. It is durable when StoreSecret returns.
	StoreSecret(ctx context.Context, name string, secret holdfast.Secret) error
}

// ManagementKeyName is the name in the secret store of the management key of the card with this serial number.
func ManagementKeyName(serial uint32) string { return fmt.Sprintf("piv-%d-management-key", serial) }

func (c Config) check() error {
	switch {
	case c.ManagementKey > ManagementKeyOnCard || c.RotateManagementKey > RotateNever:
		return holdfast.Errorf(holdfast.ErrInvalid, "", "unknown management key setting")
	case c.ManagementKey == ManagementKeyInStore && c.RotateManagementKey != RotateNever && c.Secrets == nil:
		return holdfast.Errorf(holdfast.ErrInvalid, "",
			"a rotated management key needs a place: give a secret store, keep it on the card, or do not rotate it")
	case c.Idle < 0:
		return holdfast.Errorf(holdfast.ErrInvalid, "", "the idle time is negative")
	}
	return nil
}
