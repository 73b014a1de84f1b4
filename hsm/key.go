//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// key is a resident key, or what a wrapped key has in common with one.
type key struct {
	b         *Backend
	ref       holdfast.Ref
	algorithm holdfast.Algorithm
	public    crypto.PublicKey
	always    bool // the PIN is asked for at every use
	mech      []*pkcs11.Mechanism

	// find returns the handle of the private or secret half for one operation in s, and what to call after it.
	find func(s *session) (pkcs11.ObjectHandle, func(*session), error)
}

var (
	_ holdfast.Key      = (*key)(nil)
	_ holdfast.Agreer   = (*key)(nil)
	_ holdfast.Attester = (*residentKey)(nil)
)

// residentKey is a key that is an object on the token.
type residentKey struct {
	key
	sel   selector
	bound atomic.Pointer[binding]
}

// binding is where a key was found. It holds as long as both c and its generation do.
type binding struct {
	c          *connection
	generation uint64
	handle     pkcs11.ObjectHandle
}

func noRelease(*session) {}

// newResident returns the key that sel selects, whose facts were read.
func (b *Backend) newResident(ref holdfast.Ref, sel selector, f facts) *residentKey {
	k := &residentKey{key: key{b: b, ref: ref, algorithm: f.algorithm, public: f.public, always: f.always}, sel: sel}
	k.mech = signMechanism(f.algorithm)
	k.find = k.handle
	return k
}

// bind remembers where the key is.
func (k *residentKey) bind(c *connection, generation uint64, h pkcs11.ObjectHandle) {
	k.bound.Store(&binding{c, generation, h})
}

// handle returns the key's handle, from memory while the token was not away.
func (k *residentKey) handle(s *session) (pkcs11.ObjectHandle, func(*session), error) {
	generation := s.c.objects.generation.Load()
	if at := k.bound.Load(); at != nil && at.c == s.c && at.generation == generation {
		return at.handle, noRelease, nil
	}
	objects, err := s.choose(k.sel)
	if err != nil {
		return 0, nil, err
	}
	o, err := one(objects)
	if err != nil {
		return 0, nil, err
	}
	known, err := s.known()
	if err != nil {
		return 0, nil, err
	}
	f, err := s.describe(o, known)
	if err != nil {
		return 0, nil, err
	}
	if f.algorithm != k.algorithm || !samePublic(f.public, k.public) {
		return 0, nil, holdfast.Errorf(holdfast.ErrNotFound, "", "another key has taken the place of this one on the token")
	}
	h := k.b.faster(s, k.algorithm, o.handle, f.always)
	k.bind(s.c, generation, h)
	return h, noRelease, nil
}

// faster returns a copy of a token key in the session where the configuration wants that and the token does it.
func (b *Backend) faster(s *session, a holdfast.Algorithm, h pkcs11.ObjectHandle, always bool) pkcs11.ObjectHandle {
	if !b.cfg.SessionCopies || always || a.Use() != holdfast.UseSign {
		return h
	}
	copied, err := s.p11.CopyObject(s.handle, h, []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, false)})
	if err != nil {
		return h
	}
	return copied
}

// Ref returns the key's pkcs11: URI with the token's label and serial number and the key's CKA_ID, or its label where it
// has no CKA_ID.
func (k *key) Ref() holdfast.Ref { return k.ref }

// Algorithm returns the key's algorithm.
func (k *key) Algorithm() holdfast.Algorithm { return k.algorithm }

// Public returns the public key, nil for A256GCM.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign signs in the token; see holdfast.Key.
func (k *key) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.algorithm.CheckInput(digest, opts); err != nil {
		return nil, failure("sign", k.ref, err)
	}
	raw, err := k.signRaw(ctx, input(k.algorithm, digest))
	if err != nil {
		return nil, failure("sign", k.ref, err)
	}
	signature, err := output(k.algorithm, raw)
	return signature, failure("sign", k.ref, err)
}

func (k *key) signRaw(ctx context.Context, data []byte) ([]byte, error) {
	if k.always {
		return k.b.signAlways(ctx, k, data)
	}
	return ask(ctx, k.b, func(s *session) ([]byte, error) {
		h, release, err := k.find(s)
		if err != nil {
			return nil, err
		}
		defer release(s)
		return s.sign(k.mech, h, data)
	})
}

// signAlways signs with a key that wants the PIN every time (CKA_ALWAYS_AUTHENTICATE), in a session of its own: between
// C_SignInit and C_Sign comes C_Login, and one that fails leaves the operation open.
func (b *Backend) signAlways(ctx context.Context, k *key, data []byte) ([]byte, error) {
	pin, err := b.contextPIN(ctx)
	if err != nil {
		return nil, err
	}
	var raw []byte
	err = b.pins.try(ctx, func() (err error) {
		raw, err = ask(ctx, b, func(s *session) ([]byte, error) {
			h, release, err := k.find(s)
			if err != nil {
				return nil, err
			}
			defer release(s)
			return s.signWithPIN(k.mech, h, data, pin)
		})
		return err
	})
	if returned(err, refusedValues[:]...) {
		return nil, refusal(err, 0)
	}
	return raw, err
}

// contextPIN returns the PIN for CKU_CONTEXT_SPECIFIC.
func (b *Backend) contextPIN(ctx context.Context) (holdfast.Secret, error) {
	if _, err := b.connection(ctx); err != nil {
		return holdfast.Secret{}, err
	}
	if err := b.pins.allowed(ctx, 0); err != nil {
		return holdfast.Secret{}, err
	}
	return b.loginSecret(ctx, b.token.Flags, nil)
}

func (s *session) signWithPIN(mech []*pkcs11.Mechanism, h pkcs11.ObjectHandle, data []byte, pin holdfast.Secret) ([]byte, error) {
	own, err := s.c.openSession()
	if err != nil {
		return nil, err
	}
	defer closeAll([]*session{own})
	if err := own.p11.SignInit(own.handle, mech, h); err != nil {
		return nil, fmt.Errorf("C_SignInit: %w", err)
	}
	if err := own.p11.Login(own.handle, pkcs11.CKU_CONTEXT_SPECIFIC, string(pin.Bytes())); err != nil {
		return nil, errChanged{fmt.Errorf("C_Login for this operation: %w", err)}
	}
	raw, err := own.p11.Sign(own.handle, data)
	if err != nil {
		return nil, errChanged{fmt.Errorf("C_Sign: %w", err)} // not again with the same PIN
	}
	return raw, nil
}

// Key returns the key that a pkcs11: URI names (RFC 7512): by id, by object (its label), or both. Other attributes have
// to fit the token. It is how a key that another program made is adopted.
func (b *Backend) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	u, err := b.checkRef(ref)
	if err != nil {
		return nil, failure("find", ref, err)
	}
	if k, ok := b.keys.Load(u.ref()); ok {
		return k.(*residentKey), nil
	}
	found, err := ask(ctx, b, func(s *session) (*residentKey, error) {
		objects, err := s.choose(selectorOf(u))
		if err != nil {
			return nil, err
		}
		o, err := one(objects)
		if err != nil {
			return nil, err
		}
		return b.adopt(s, o)
	})
	if err != nil {
		return nil, failure("find", ref, err)
	}
	return found, nil
}

// checkRef parses ref and returns ErrInvalid when it cannot name a key on this token.
func (b *Backend) checkRef(ref holdfast.Ref) (uri, error) {
	u, err := parseURI(string(ref))
	if err != nil {
		return nil, err
	}
	if !u.namesObject() {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "the ref names no key: give id or object")
	}
	if t := u["type"]; t != "" && t != "private" && t != "secret-key" {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
			"the ref names a %s object; a key here is a private or secret-key object", t)
	}
	for name, is := range map[string]string{
		"token": b.token.Label, "serial": b.token.SerialNumber, "manufacturer": b.token.ManufacturerID, "model": b.token.Model,
	} {
		if value, ok := u[name]; ok && value != trim(is) {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
				"the ref is for another token: its %s is %q, here it is %q", name, clip(value), trim(is))
		}
	}
	for _, name := range [...]string{
		"slot-id", "slot-description", "slot-manufacturer", "library-version", "library-description", "library-manufacturer",
	} {
		if _, ok := u[name]; ok {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
				"%s in a ref says nothing about a key, and modules change it: name the token by token and serial", name)
		}
	}
	return u, nil
}

// refFor returns the canonical ref of the key with an id, and its label where there is no id.
func (b *Backend) refFor(id, label string) uri {
	u := uri{"token": trim(b.token.Label), "serial": trim(b.token.SerialNumber)}
	if id != "" {
		u["id"] = id
	} else {
		u["object"] = label
	}
	return u
}

// adopt returns the key that is object o.
func (b *Backend) adopt(s *session, o object) (*residentKey, error) {
	if reserved(o.label) {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the key %q is for Holdfast's own use on this token", o.label)
	}
	u := b.refFor(o.id, o.label)
	objects, err := s.known()
	if err != nil {
		return nil, err
	}
	if o.id == "" && o.label == "" {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"a key on the token has neither CKA_ID nor CKA_LABEL, so that nothing can name it; give it one of them")
	}
	// A CKA_ID that several keys have does not name one of them; id and label together may.
	if _, err := one(filter(objects, selectorOf(u))); errors.Is(err, holdfast.ErrInvalid) {
		u["object"] = o.label
		if _, err := one(filter(objects, selectorOf(u))); err != nil {
			return nil, err
		}
	}
	ref := u.ref()
	if k, ok := b.keys.Load(ref); ok {
		return k.(*residentKey), nil
	}
	generation := s.c.objects.generation.Load()
	f, err := s.describe(o, objects)
	if err != nil {
		return nil, failure("", ref, err)
	}
	k := b.newResident(ref, selectorOf(u), f)
	k.bind(s.c, generation, b.faster(s, f.algorithm, o.handle, f.always))
	kept, _ := b.keys.LoadOrStore(ref, k)
	return kept.(*residentKey), nil
}

// Keys lists the keys on the token as they are now. Keys that cannot be used here, ambiguous ones included, are yielded
// as errors; what Holdfast keeps for its own use is left out.
func (b *Backend) Keys(ctx context.Context) iter.Seq2[holdfast.Key, error] {
	return func(yield func(holdfast.Key, error) bool) {
		objects, err := ask(ctx, b, (*session).enumerate)
		if err != nil {
			yield(nil, failure("list", "", err))
			return
		}
		for _, o := range objects {
			if !secretHalf(o.class) || reserved(o.label) {
				continue
			}
			k, err := ask(ctx, b, func(s *session) (*residentKey, error) { return b.adopt(s, o) })
			if err != nil {
				if !yield(nil, failure("list", b.refFor(o.id, o.label).ref(), err)) {
					return
				}
				continue
			}
			if !yield(k, nil) {
				return
			}
		}
	}
}
