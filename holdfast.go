// Package holdfast says what a key in a cryptographic device is.
//
// A [Backend] is an open connection to one cryptographic module: a PKCS#11 token, a TPM 2.0 or a PIV card. A [Key] is a
// key whose private half was generated inside that module and never leaves it in the clear. Everything else in Holdfast
// is an adapter for a kind of device (packages hsm, tpm and token) or a use of the keys (custody, api, did).
//
// What only some devices can do is a small optional interface, found with [As]: [Destroyer], [Planner], [Loader],
// [Sealer], [Unlocker], [Prober], [Activator], [Examiner] on a backend; [Agreer], [Encrypter], [Attester], [WrappedKey]
// on a key.
//
// The package depends on the standard library only. It trusts the device to keep private keys, and checks what the
// device says about them (see [Backend.Generate]).
package holdfast

import (
	"context"
	"crypto"
	"iter"
)

// Ref names one key on one backend. It is a URI without secrets: pkcs11: (RFC 7512), tpm: or piv:. Two refs name the same
// key when they are equal as strings; a backend returns refs in one canonical form.
type Ref string

// Backend is an open connection to one cryptographic module. Its methods may be called from several goroutines at once;
// an implementation queues where its device cannot work in parallel.
//
// A device command in flight cannot be interrupted. ctx is honoured before a call is queued and while it waits for the
// device; when it ends there, the call returns ctx.Err() and the device was not touched.
//
// A device that goes away makes calls fail with [ErrUnavailable]; when it comes back, the next call works again.
type Backend interface {
	// Capabilities returns what the device said it can do when it was opened, from memory.
	Capabilities() Capabilities

	// Generate makes a new key inside the device and returns it after reading back that it cannot be exported and after
	// one test signature (or agreement, or encryption) that verifies. On failure nothing is left on the device.
	// It returns ErrInvalid for a spec that says nothing any device could do, ErrUnsupported for what this device cannot
	// do, ErrExists when the place is taken, ErrBusy when the device is full.
	Generate(ctx context.Context, spec KeySpec) (Key, error)

	// Key returns the resident key that ref names. It touches the device the first time. A ref may be less than
	// canonical where that names exactly one key (pkcs11:object=mine): this is how a key made by another program is
	// adopted. It returns ErrNotFound when there is none, ErrInvalid for a ref of another backend or one that is
	// ambiguous, ErrUnsupported for a key of a kind that Holdfast has no algorithm for.
	Key(ctx context.Context, ref Ref) (Key, error)

	// Keys lists the resident keys of the device in no particular order, those Holdfast did not make included. An
	// object it cannot use is yielded as an error without ending the list.
	Keys(ctx context.Context) iter.Seq2[Key, error]

	// Close releases the device. Keys got from the backend fail afterwards with ErrUnavailable. Close is idempotent.
	Close() error
}

// Key is a key whose private (or secret) half lives in a backend. One key has one algorithm.
type Key interface {
	// Ref returns the key's canonical name, from memory.
	Ref() Ref

	// Algorithm returns the one algorithm this key is used with, from memory.
	Algorithm() Algorithm

	// Public returns the public half, from memory: *ecdsa.PublicKey (for ES256K on a curve named secp256k1),
	// ed25519.PublicKey, *rsa.PublicKey, for ECDH algorithms *ecdh.PublicKey, and nil for a secret key (A256GCM).
	Public() crypto.PublicKey

	// Sign signs digest with the key's algorithm. For EdDSA, digest is the whole message. opts may be nil; otherwise it
	// has to agree with the algorithm (see [Algorithm.CheckInput]). Signatures are those of crypto.Signer: ASN.1 DER
	// ECDSA-Sig-Value for ECDSA (low-S for ES256K), 64 bytes for Ed25519, the modulus' length for RSA.
	// It returns ErrInvalid for input that does not fit the algorithm, ErrUnsupported for a key that does not sign,
	// ErrAuth when a PIN is needed and was refused, ErrLocked, ErrBusy, ErrUnavailable.
	Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// As finds the first T in a backend or key and in what it decorates: it asks v itself, then what v's
// method Unwrap returns, and so on.
func As[T any](v any) (T, bool) {
	for v != nil {
		if t, ok := v.(T); ok {
			return t, true
		}
		switch d := v.(type) {
		case interface{ Unwrap() Backend }:
			v = d.Unwrap()
		case interface{ Unwrap() Key }:
			v = d.Unwrap()
		default:
			v = nil
		}
	}
	var zero T
	return zero, false
}
