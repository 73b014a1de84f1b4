//go:build cgo && !nopkcs11

package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// wrappedKey is a key that is on the token only while it is used. There may be very many: what is in the blob is parsed
// again when it is needed, which takes a hundredth of the time of unwrapping.
type wrappedKey struct {
	key
	encoded []byte
	mac     string      // names the key in the cache
	genuine atomic.Bool // the MAC was checked
}

var _ holdfast.WrappedKey = (*wrappedKey)(nil)

// Blob returns the wrapped key in the form that Load takes.
func (k *wrappedKey) Blob() []byte { return bytes.Clone(k.encoded) }

// macMechanism is how blobs are authenticated.
func macMechanism() []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256_HMAC, nil)}
}

// generateWrapped makes a key in a session, wraps it and destroys it.
func (b *Backend) generateWrapped(ctx context.Context, spec holdfast.KeySpec) (*wrappedKey, error) {
	if err := b.ensureWrappingKey(ctx); err != nil {
		return nil, err
	}
	id := spec.ID
	if id == nil {
		id = newID()
	}
	return askLong(ctx, b, func(s *session) (*wrappedKey, error) { return b.makeWrapped(s, spec.Algorithm, id) })
}

func (b *Backend) makeWrapped(s *session, a holdfast.Algorithm, id []byte) (*wrappedKey, error) {
	p := b.profile.Load()
	keys, err := s.wrappingKeys()
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, holdfast.Errorf(holdfast.ErrUnavailable, "", "the key-wrapping key has gone from the token")
	}
	kek := keys[0]
	w := want{extractable: true, trustedOnly: kek.trusted, restrict: p.restrict}
	made, err := s.make(p, a, w)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.destroy(made.private, made.public) }()
	if err := s.checkProtected(made.private, w); err != nil {
		return nil, err
	}
	pub, err := s.tryNew(p, a, made)
	if err != nil {
		return nil, err
	}
	wrapped, err := s.wrap(p.wrap, kek.kek, made.private)
	if err != nil {
		return nil, err
	}
	spki, err := encodeSPKI(pub)
	if err != nil {
		return nil, err
	}
	body := blobBody{Algorithm: string(a), ID: id, KEK: []byte(kek.id), Mechanism: int64(p.wrap), Public: spki, Wrapped: wrapped}
	k, err := b.seal(s, kek, body, pub)
	if err == nil && a.RSA() {
		err = b.reopens(s, k) // which discover did not try
	}
	return k, err
}

// tryNew uses a new session key once and returns its public half.
func (s *session) tryNew(p *profile, a holdfast.Algorithm, made pair) (crypto.PublicKey, error) {
	switch a.Use() {
	case holdfast.UseEncrypt:
		return nil, s.testEncrypt(made.private)
	case holdfast.UseSign:
		pub, err := s.readPublic(a, made.public)
		if err != nil {
			return nil, err
		}
		return pub, s.testSign(a, made.private, pub)
	}
	if err := s.probeUse(p, a, made); err != nil {
		return nil, err
	}
	return s.readPublic(a, made.public)
}

// seal authenticates a blob's body and makes the key of it.
func (b *Backend) seal(s *session, kek wrappingKey, body blobBody, pub crypto.PublicKey) (*wrappedKey, error) {
	der, err := encodeBody(body)
	if err != nil {
		return nil, err
	}
	mac, err := s.sign(macMechanism(), kek.mac, der)
	if err != nil {
		return nil, err
	}
	encoded, err := encodeBlob(der, mac)
	if err != nil {
		return nil, err
	}
	k := b.newWrapped(encoded, body, mac, pub)
	k.genuine.Store(true)
	return k, nil
}

// reopens unwraps a key and uses it.
func (b *Backend) reopens(s *session, k *wrappedKey) error {
	h, release, err := k.handle(s)
	if err != nil {
		return err
	}
	defer release(s)
	return s.testSign(k.algorithm, h, k.public)
}

func (b *Backend) newWrapped(encoded []byte, body blobBody, mac []byte, pub crypto.PublicKey) *wrappedKey {
	a := holdfast.Algorithm(body.Algorithm)
	k := &wrappedKey{encoded: encoded, mac: string(mac)}
	k.key = key{b: b, ref: b.refFor(string(body.ID), "").ref(), algorithm: a, public: pub, mech: signMechanism(a)}
	k.find = k.handle
	return k
}

// Load returns the key in a blob, see holdfast.Loader. Damage is found at once, forgery at first use. A blob of another
// token is found at once while the token is there, else at first use.
func (b *Backend) Load(ctx context.Context, encoded []byte) (holdfast.Key, error) {
	parsed, err := parseBlob(encoded)
	if err != nil {
		return nil, failure("load", "", err)
	}
	a := holdfast.Algorithm(parsed.Body.Algorithm)
	pub, err := parseSPKI(a, parsed.Body.Public)
	if err != nil {
		return nil, failure("load", "", damaged("its public key does not parse: %w", err))
	}
	err = b.run(ctx, func(s *session) error {
		_, err := s.wrappingKey(parsed.Body.KEK)
		return err
	})
	if code := holdfast.CodeOf(failure("load", "", err)); err != nil && (code == holdfast.ErrInvalid || ctx.Err() != nil) {
		return nil, failure("load", "", err)
	}
	return b.newWrapped(bytes.Clone(encoded), parsed.Body, parsed.MAC, pub), nil
}

// handle returns the unwrapped key, from the cache if it is there.
func (k *wrappedKey) handle(s *session) (pkcs11.ObjectHandle, func(*session), error) {
	cached := s.c.unwrapped
	u := cached.acquire(k.mac)
	if u == nil {
		h, err := k.unwrap(s)
		if err != nil {
			return 0, nil, err
		}
		var doomed []pkcs11.ObjectHandle
		u, doomed = cached.put(k.mac, h)
		_ = s.destroy(doomed...) // what cannot be destroyed dies with its session
	}
	return u.handle, func(s *session) {
		if cached.release(u) {
			_ = s.destroy(u.handle)
		}
	}, nil
}

// unwrap checks the blob's MAC once, unwraps the key into the session and sees to it that it cannot be exported there.
func (k *wrappedKey) unwrap(s *session) (pkcs11.ObjectHandle, error) {
	p := k.b.profile.Load()
	if !p.wrappable(k.algorithm) {
		return 0, holdfast.Errorf(holdfast.ErrUnsupported, "", "this token does not unwrap %s keys", k.algorithm)
	}
	parsed, err := parseBlob(k.encoded)
	if err != nil {
		return 0, err
	}
	kek, err := s.wrappingKey(parsed.Body.KEK)
	if err != nil {
		return 0, err
	}
	if !k.genuine.Load() {
		mac, err := s.sign(macMechanism(), kek.mac, parsed.Body.Raw)
		if err != nil {
			return 0, err
		}
		if !hmac.Equal(mac, parsed.MAC) {
			return 0, holdfast.Errorf(holdfast.ErrIntegrity, "",
				"the wrapped key was not made by this token as it is: its MAC is wrong")
		}
		k.genuine.Store(true)
	}
	kind := keyType(k.algorithm, p.ways[k.algorithm].mech)
	template := unwrapTemplate(k.algorithm, kind, want{restrict: p.restrict})
	h, err := s.unwrap(uint(parsed.Body.Mechanism), kek.kek, parsed.Body.Wrapped, template)
	if err != nil {
		return 0, err
	}
	if err := s.tighten(h); err != nil {
		_ = s.destroy(h)
		return 0, err
	}
	return h, nil
}

// tighten sees to it that an unwrapped key is sensitive and not extractable. Some modules ignore the template of
// C_UnwrapKey.
func (s *session) tighten(h pkcs11.ObjectHandle) error {
	values, err := s.read(h, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE)
	if err != nil {
		return err
	}
	if values.is(pkcs11.CKA_SENSITIVE, true) && values.is(pkcs11.CKA_EXTRACTABLE, false) {
		return nil
	}
	for _, a := range []*pkcs11.Attribute{attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false)} {
		_ = s.p11.SetAttributeValue(s.handle, h, []*pkcs11.Attribute{a}) // what counts is what is read next
	}
	values, err = s.read(h, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE)
	if err != nil {
		return err
	}
	if !values.is(pkcs11.CKA_SENSITIVE, true) || !values.is(pkcs11.CKA_EXTRACTABLE, false) {
		return holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the module unwraps keys so that they can be exported, and does not let that be changed; make resident keys on it")
	}
	return nil
}
