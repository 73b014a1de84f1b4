//go:build cgo && !nopkcs11

package hsm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// wrappingKey is a key-wrapping key (KEK) on the token together with the HMAC key that authenticates what it wrapped.
// Both have the same CKA_ID. A token may have several; each blob names its own.
type wrappingKey struct {
	id      string
	kek     pkcs11.ObjectHandle
	mac     pkcs11.ObjectHandle
	trusted bool // CKA_TRUSTED, so that keys which only trusted keys may wrap can be made
	locked  bool // what it wrapped cannot be unwrapped so that it can be exported: this was tried
}

// wrappingKeys are those that were found on the token.
type wrappingKeys struct {
	mu     sync.Mutex
	loaded bool
	keys   []wrappingKey // the best first
}

func (w *wrappingKeys) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded, w.keys = false, nil
}

// kekOptions are the attributes of a KEK that not all modules, and not all users, may give.
type kekOptions struct {
	unwrap  *arrayTemplate // CKA_UNWRAP_TEMPLATE, made to stay: CKA_MODIFIABLE and CKA_COPYABLE are false
	trusted bool           // CKA_TRUSTED
	public  bool           // CKA_PRIVATE is false
}

// kekTemplate returns the template for an AES-256 key that wraps and unwraps and does nothing else: one that decrypted
// would give away what it wrapped.
func kekTemplate(w want, o kekOptions) []*pkcs11.Attribute {
	list := append(w.common(),
		attr(pkcs11.CKA_PRIVATE, !o.public), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false),
		attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_UNWRAP, true),
		attr(pkcs11.CKA_ENCRYPT, false), attr(pkcs11.CKA_DECRYPT, false), attr(pkcs11.CKA_SIGN, false), attr(pkcs11.CKA_VERIFY, false))
	if o.trusted {
		list = append(list, attr(pkcs11.CKA_TRUSTED, true))
	}
	if o.unwrap != nil {
		list = append(list, o.unwrap.attribute, attr(pkcs11.CKA_MODIFIABLE, false), attr(pkcs11.CKA_COPYABLE, false))
	}
	return list
}

// macTemplate returns the template for a generic secret that makes HMACs.
func macTemplate(w want, o kekOptions) []*pkcs11.Attribute {
	return append(w.common(),
		attr(pkcs11.CKA_PRIVATE, !o.public), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false),
		attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_SIGN, true), attr(pkcs11.CKA_VERIFY, true),
		attr(pkcs11.CKA_WRAP, false), attr(pkcs11.CKA_UNWRAP, false), attr(pkcs11.CKA_ENCRYPT, false), attr(pkcs11.CKA_DECRYPT, false))
}

// unwrapTemplate returns the template for C_UnwrapKey of a key of algorithm a.
func unwrapTemplate(a holdfast.Algorithm, kind uint, w want) []*pkcs11.Attribute {
	list := append(w.protected(), attr(pkcs11.CKA_KEY_TYPE, kind))
	if a.Use() == holdfast.UseEncrypt {
		return append(list, attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_ENCRYPT, true), attr(pkcs11.CKA_DECRYPT, true))
	}
	list = append(list, attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY))
	return append(list, privateUses(a)...)
}

// wrappingKeys returns the usable key-wrapping keys on the token, from memory after the first time.
func (s *session) wrappingKeys() ([]wrappingKey, error) {
	w := &s.c.wrapping
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loaded {
		return w.keys, nil
	}
	objects, err := s.known()
	if err != nil {
		return nil, err
	}
	var keys []wrappingKey
	for _, o := range objects {
		if o.class != pkcs11.CKO_SECRET_KEY || o.label != kekLabel || len(o.id) != idSize {
			continue
		}
		k, ok, err := s.pairUp(o, objects)
		if err != nil {
			return nil, err
		}
		if ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b wrappingKey) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(a.id, b.id))
	})
	w.loaded, w.keys = true, keys
	return keys, nil
}

// rank says how well a wrapping key protects what it wraps.
func (k wrappingKey) rank() int {
	switch {
	case k.locked && k.trusted:
		return 3
	case k.locked:
		return 2
	case k.trusted:
		return 1
	}
	return 0
}

// pairUp finds the HMAC key of a KEK and checks that both were made on this token and cannot leave: anybody with the PIN
// can put a key of which he has a copy under our label.
func (s *session) pairUp(kek object, objects []object) (wrappingKey, bool, error) {
	for _, o := range objects {
		if o.class != pkcs11.CKO_SECRET_KEY || o.label != macLabel || o.id != kek.id {
			continue
		}
		for _, h := range []pkcs11.ObjectHandle{kek.handle, o.handle} {
			err := s.checkProtected(h, want{})
			if holdfast.CodeOf(err) == holdfast.ErrUnsupported {
				return wrappingKey{}, false, nil
			}
			if err != nil {
				return wrappingKey{}, false, err
			}
		}
		values, err := s.read(kek.handle, pkcs11.CKA_TRUSTED)
		if returned(err, handleValues[:]...) || returned(err, lostValues[:]...) {
			return wrappingKey{}, false, err
		}
		k := wrappingKey{id: kek.id, kek: kek.handle, mac: o.handle, trusted: values.is(pkcs11.CKA_TRUSTED, true)}
		k.locked = s.c.profile.lockDown && !s.loosens(kek.handle)
		return k, true, nil
	}
	return wrappingKey{}, false, nil
}

// wrappingKey returns the key-wrapping key with an identifier, ErrInvalid when it is not on this token.
func (s *session) wrappingKey(id []byte) (wrappingKey, error) {
	keys, err := s.wrappingKeys()
	if err != nil {
		return wrappingKey{}, err
	}
	for _, k := range keys {
		if k.id == string(id) {
			return k, nil
		}
	}
	return wrappingKey{}, holdfast.Errorf(holdfast.ErrInvalid, "",
		"the key was wrapped by another token: this one has no wrapping key %x", id)
}

// goodEnough reports whether among keys there is one that is as good as can be made on this token.
func (c *connection) goodEnough(keys []wrappingKey) bool {
	return len(keys) > 0 && (keys[0].locked || !c.profile.lockDown)
}

// knowsWrappingKey reports, from memory, whether the connection has found a key-wrapping key that is as good as can be
// made. It says no when the keys are just being looked for.
func (c *connection) knowsWrappingKey() bool {
	if c == nil {
		return false
	}
	w := &c.wrapping
	if !w.mu.TryLock() { // it is held while the token is asked
		return false
	}
	defer w.mu.Unlock()
	return w.loaded && c.goodEnough(w.keys)
}

// ensureWrappingKey makes a key-wrapping key where the token has none that is as good as can be made.
func (b *Backend) ensureWrappingKey(ctx context.Context) error {
	if b.current.Load().knowsWrappingKey() { // those who make keys do not wait for one another to look
		return nil
	}
	b.kekMu.Lock()
	defer b.kekMu.Unlock()
	have, err := ask(ctx, b, func(s *session) (bool, error) {
		keys, err := s.wrappingKeys()
		return s.c.goodEnough(keys), err
	})
	if err != nil || have {
		return err
	}
	if b.cfg.SOPIN != nil {
		return b.makeTrusted(ctx)
	}
	id := newID()
	err = b.run(ctx, func(s *session) error {
		if _, err := s.sweep(string(id)); err != nil {
			return err
		}
		return s.makeWrappingKey(b.profile.Load(), id, kekOptions{})
	})
	if err != nil {
		b.cleanUp(ctx, string(id))
		return fmt.Errorf("make the key-wrapping key: %w", err)
	}
	return nil
}

// makeWrappingKey makes a KEK and its HMAC key.
func (s *session) makeWrappingKey(p *profile, id []byte, o kekOptions) error {
	if p.lockDown {
		o.unwrap = lockDown()
		defer o.unwrap.release()
	}
	kek, err := s.generateSecret(pkcs11.CKM_AES_KEY_GEN, kekTemplate(want{token: true, label: kekLabel, id: id}, o))
	if err != nil {
		return err
	}
	mac, err := s.generateSecret(pkcs11.CKM_GENERIC_SECRET_KEY_GEN, macTemplate(want{token: true, label: macLabel, id: id}, o))
	if err != nil {
		return err
	}
	for _, h := range []pkcs11.ObjectHandle{kek, mac} {
		if err := s.checkProtected(h, want{}); err != nil {
			return err
		}
	}
	s.c.forget()
	return nil
}

// makeTrusted makes the key-wrapping key in a session of the security officer, for which the user has to be logged out:
// the connection ends and another begins.
func (b *Backend) makeTrusted(ctx context.Context) error {
	officer := &pins{device: b.pins.device + ";so", memory: b.pins.memory, source: b.cfg.SOPIN}
	if err := officer.allowed(ctx, 0); err != nil {
		return fmt.Errorf("the security officer's PIN: %w", err)
	}
	pin, err := officer.get(ctx)
	if err != nil {
		return fmt.Errorf("the security officer's PIN: %w", err)
	}
	id := newID()
	var failed error
	_, err = b.reconnect(ctx, preparation{before: func(ctx context.Context, c *connection, s *session) {
		failed = officer.try(ctx, func() error { return b.asOfficer(c, s, pin, id) })
	}})
	if ctx.Err() != nil {
		return ctx.Err() // the attempt goes on
	}
	if returned(failed, refusedValues[:]...) {
		failed = holdfast.Errorf(holdfast.ErrAuth, "",
			"the token refused the security officer's PIN (%w), which is not tried again", failed)
	}
	if failed == nil {
		failed = err
	}
	if failed != nil {
		b.cleanUp(ctx, string(id))
		return fmt.Errorf("make the trusted key-wrapping key: %w", failed)
	}
	return nil
}

// asOfficer logs the security officer in, makes the key-wrapping key, and logs out.
func (b *Backend) asOfficer(c *connection, s *session, pin holdfast.Secret, id []byte) error {
	return b.mod.call(b.cfg.CallTimeout, func() error {
		if err := s.login(pkcs11.CKU_SO, pin); err != nil {
			return fmt.Errorf("C_Login of the security officer: %w", err)
		}
		if !b.mod.enter(c.epoch) {
			return errExpired
		}
		defer b.mod.leave()
		defer func() { _ = s.p11.Logout(s.handle) }()
		// Security officers see no private objects (PKCS#11 2.40, section 2.6), so the trusted key is a public one; what
		// it is worth rests on CKA_SENSITIVE.
		return s.makeWrappingKey(b.profile.Load(), id, kekOptions{trusted: true, public: true})
	})
}
