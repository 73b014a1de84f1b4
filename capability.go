package holdfast

import (
	"context"
	"crypto/ecdh"
	"slices"
	"strings"
)

// Capabilities is what a device said of itself when it was opened.
type Capabilities struct {
	// Kind is the kind of backend: "pkcs11", "tpm2" or "piv".
	Kind string

	// Device identifies the module, for people and for evidence.
	Device Device

	// Algorithms lists what Generate takes, in the order of [Algorithms].
	Algorithms []Support

	// DefaultResidence is what ResidenceDefault means here: Resident or Wrapped.
	DefaultResidence Residence

	// Places lists the values KeySpec.Place may have; nil when the backend has nothing to choose or takes a range that
	// its documentation names.
	Places []string

	// Distrust says why keys on this device must not be believed to be non-exportable: what the backend's self-test got
	// out of it. Empty when the device stood the test.
	Distrust string
}

// Device identifies a cryptographic module. Fields are empty where the device does not tell.
type Device struct {
	Manufacturer string
	Model        string
	Serial       string
	Firmware     string
	Label        string // the token label of PKCS#11
}

// Support says in which residences a backend generates keys of an algorithm.
type Support struct {
	Algorithm Algorithm
	Resident  bool
	Wrapped   bool
}

// Supports reports whether keys of algorithm a can be generated with residence r.
func (c Capabilities) Supports(a Algorithm, r Residence) bool {
	if r == ResidenceDefault {
		r = c.DefaultResidence
	}
	return slices.ContainsFunc(c.Algorithms, func(s Support) bool {
		return s.Algorithm == a && (r == Resident && s.Resident || r == Wrapped && s.Wrapped)
	})
}

// CheckSpec returns ErrInvalid for a spec that is wrong anywhere, ErrUnsupported with the choices for one that this
// backend cannot fulfil.
func (c Capabilities) CheckSpec(s KeySpec) error {
	if err := s.Check(); err != nil {
		return err
	}
	r := s.Residence
	if r == ResidenceDefault {
		r = c.DefaultResidence
		if s.Place != "" {
			r = Resident
		}
	}
	if !c.Supports(s.Algorithm, r) {
		return Errorf(ErrUnsupported, "",
			"this %s backend makes no %s %s keys; it makes %s", c.Kind, r, s.Algorithm, c.list(r))
	}
	return nil
}

func (c Capabilities) list(r Residence) string {
	var names []string
	for _, s := range c.Algorithms {
		if c.Supports(s.Algorithm, r) {
			names = append(names, string(s.Algorithm))
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Optional interfaces of a Backend.

// Destroyer is a Backend that can destroy resident keys.
type Destroyer interface {
	// Destroy destroys the key that ref names and everything that belongs to it on the device, half-made keys that an
	// interrupted Generate left under a planned ref included, and checks that it is gone. It returns ErrNotFound when
	// there was nothing.
	Destroy(ctx context.Context, ref Ref) error
}

// Planner is a Backend that can say beforehand where Generate will put a resident key, so that a caller can write that
// down first and clean up after a crash in between with [Destroyer].
type Planner interface {
	// Plan returns spec with everything filled in that decides the key's ref (Place, ID), and that ref. Generate with
	// the returned spec makes a key of that ref, or returns ErrExists. Plan changes nothing on the device.
	Plan(ctx context.Context, spec KeySpec) (KeySpec, Ref, error)
}

// Loader is a Backend that makes wrapped keys.
type Loader interface {
	// Load returns the key in a blob that [WrappedKey.Blob] returned. The device is touched at first use. It returns
	// ErrIntegrity for a blob that was truncated or edited (at the latest at first use), ErrInvalid for one of another
	// backend or device.
	Load(ctx context.Context, blob []byte) (Key, error)
}

// Sealer is a Backend that binds secrets to its device.
type Sealer interface {
	// Seal returns a blob from which only this device can get secret back, and only in the state that options ask for.
	// Nil options mean no condition on the state.
	Seal(ctx context.Context, secret Secret, options *SealOptions) ([]byte, error)

	// Unseal returns the secret. It returns ErrDenied when the device is not in the state asked for when the secret was
	// sealed, ErrAuth for a wrong AuthValue, ErrIntegrity for an edited blob.
	Unseal(ctx context.Context, blob []byte, options *UnsealOptions) (Secret, error)
}

// SealOptions are conditions under which a device gives a sealed secret back.
type SealOptions struct {
	// PCRs lists the platform configuration registers of the SHA-256 bank whose values must be then what they are now.
	PCRs []int

	// AuthValue is a password that must be given to unseal. Empty for none.
	AuthValue Secret
}

// UnsealOptions give what a sealed blob asks for.
type UnsealOptions struct {
	// AuthValue is the password that was given when the secret was sealed. Empty for none.
	AuthValue Secret
}

// Unlocker is a Backend with a PIN.
type Unlocker interface {
	// Unlock gives the device a PIN on behalf of a person, once. It is the only way out of the state in which a PIN was
	// refused. It returns ErrAuth with the tries left when the device refuses this PIN too, ErrLocked when the device
	// takes no PIN at all.
	Unlock(ctx context.Context, pin Secret) error

	// PINStatus returns what the device says of its PIN without trying one.
	PINStatus(ctx context.Context) (PINStatus, error)
}

// PINStatus is what a device says of its PIN.
type PINStatus struct {
	// Retries is the number of tries left, RetriesUnknown where the device does not tell.
	Retries int

	// Refused is set when a PIN was refused and no person has acted since; the backend tries no PIN until one does.
	Refused bool

	// Note is the device's warning in words ("last try"), empty when there is none.
	Note string
}

// PINMemory remembers across restarts what became of the last PIN that was given to a device, so that a daemon started
// again and again by a supervisor does not lock a card. A backend stores PINTrying before it gives a PIN to the device,
// and PINAccepted or PINRefused after. The state is durable when StorePIN returns.
type PINMemory interface {
	// LoadPIN returns the state stored last for device, a stable name such as "piv:serial=12345678"; PINAccepted for
	// one it has not heard of.
	LoadPIN(ctx context.Context, device string) (PINState, error)

	// StorePIN stores the state. When it fails, the backend gives no PIN to the device.
	StorePIN(ctx context.Context, device string, state PINState) error
}

// PINState is what became of the last PIN that was given to a device.
type PINState uint8

// The PIN states.
const (
	PINAccepted PINState = iota // accepted, or never tried
	PINTrying                   // given, and the outcome was never recorded: the process died in between
	PINRefused                  // refused
)

// Prober is a Backend that can be asked whether its device is there.
type Prober interface {
	// Probe does one cheap round trip to the device, healing a lost connection where it can. It tries no PIN that was
	// refused before.
	Probe(ctx context.Context) error
}

// Activator is a Backend whose device can prove that the key it attests with and the key its maker certified are in the
// same device.
type Activator interface {
	// Activate returns the secret in a credential that a verifier made for both keys (TPM2_ActivateCredential). It
	// returns ErrIntegrity for a credential that was made for other keys or edited, ErrInvalid for one that is none.
	Activate(ctx context.Context, credential []byte) (Secret, error)
}

// Examiner is a Backend that knows what a person should look at: a factory PIN, a module that keeps less than it should.
type Examiner interface {
	// Examine asks the device and returns one sentence for each concern, with what to do. It tries no PIN.
	Examine(ctx context.Context) ([]string, error)
}

// Optional interfaces of a Key.

// WrappedKey is a Key whose private half is kept outside the device.
type WrappedKey interface {
	Key
	// Blob returns the wrapped key, to be kept by the caller and given to [Loader.Load]. It holds no secret in the
	// clear.
	Blob() []byte
}

// Agreer is a Key for key agreement.
type Agreer interface {
	// Agreement returns the key as an opaque private key that crypto/hpke and others take; every agreement is made in
	// the device, under ctx. It returns ErrUnsupported for a key of another use.
	Agreement(ctx context.Context) (ecdh.KeyExchanger, error)
}

// Encrypter is a secret Key for authenticated encryption.
type Encrypter interface {
	// Encrypt returns nonce (12 bytes), ciphertext and tag (16 bytes) in one slice. The nonce is random.
	Encrypt(ctx context.Context, plaintext, additionalData []byte) ([]byte, error)

	// Decrypt returns the plaintext of what Encrypt returned, ErrIntegrity when that or additionalData was changed.
	Decrypt(ctx context.Context, ciphertext, additionalData []byte) ([]byte, error)
}

// Attester is a Key whose device can prove that the key was generated inside it and cannot leave.
type Attester interface {
	// Attest returns evidence about this key that is bound to challenge (32 bytes, a SHA-256) as strongly as the device
	// can.
	Attest(ctx context.Context, challenge []byte) (*Evidence, error)
}

// Evidence is a device's proof about one key.
type Evidence struct {
	// Kind names how Files are to be read: "pkcs11-attributes", "tpm2-certify" or "piv-attestation".
	Kind string

	// Files holds the parts by file name: certificates in DER, structures as the device returned them.
	Files map[string][]byte
}
