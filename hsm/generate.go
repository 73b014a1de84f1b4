//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// Generate makes a key, see holdfast.Backend. PINAlways asks for the PIN at every use (CKA_ALWAYS_AUTHENTICATE) and is
// for resident keys. Tokens have no places and no touch.
func (b *Backend) Generate(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	spec, err := b.checkSpec(ctx, spec)
	if err != nil {
		return nil, failure("generate", "", err)
	}
	if spec.Residence == holdfast.Wrapped {
		k, err := b.generateWrapped(ctx, spec)
		if err != nil {
			return nil, failure("generate", "", err)
		}
		return k, nil
	}
	k, err := b.generateResident(ctx, spec)
	if err != nil {
		return nil, failure("generate", "", err)
	}
	return k, nil
}

// checkSpec returns spec with its residence filled in, or why it cannot be fulfilled.
func (b *Backend) checkSpec(ctx context.Context, spec holdfast.KeySpec) (holdfast.KeySpec, error) {
	if err := spec.Check(); err != nil {
		return spec, err
	}
	if err := ctx.Err(); err != nil {
		return spec, err
	}
	if _, err := b.connection(ctx); err != nil {
		return spec, err // before it has logged in, the backend does not know what it can do
	}
	if spec.Place != "" {
		return spec, holdfast.Errorf(holdfast.ErrInvalid, "",
			"a PKCS#11 token has no places; leave out %q", clip(spec.Place))
	}
	if err := b.Capabilities().CheckSpec(spec); err != nil {
		return spec, err
	}
	if spec.Residence == holdfast.ResidenceDefault {
		spec.Residence = holdfast.Resident
	}
	switch {
	case reserved(spec.Label):
		return spec, holdfast.Errorf(holdfast.ErrInvalid, "",
			"the label %q is for Holdfast's own use; choose another", spec.Label)
	case spec.Touch != holdfast.TouchDefault && spec.Touch != holdfast.TouchNever:
		return spec, holdfast.Errorf(holdfast.ErrUnsupported, "", "PKCS#11 knows no touch; leave out the touch policy")
	case spec.PIN == holdfast.PINNever && b.token.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0:
		return spec, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"this token wants its PIN before any key is used; leave out the PIN policy")
	case spec.PIN == holdfast.PINAlways && spec.Residence == holdfast.Wrapped:
		return spec, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"a wrapped key cannot ask for the PIN at every use; make it resident")
	case spec.PIN == holdfast.PINAlways && spec.Algorithm.Use() != holdfast.UseSign:
		return spec, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"only keys that sign can ask for the PIN at every use here")
	}
	return spec, nil
}

// Plan chooses the CKA_ID of a resident key.
func (b *Backend) Plan(ctx context.Context, spec holdfast.KeySpec) (holdfast.KeySpec, holdfast.Ref, error) {
	spec, err := b.checkSpec(ctx, spec)
	if err == nil && spec.Residence == holdfast.Wrapped {
		err = holdfast.Errorf(holdfast.ErrInvalid, "", "a wrapped key has no place on the token to be planned")
	}
	if err != nil {
		return holdfast.KeySpec{}, "", failure("plan", "", err)
	}
	if spec.ID == nil {
		spec.ID = newID()
	}
	return spec, b.refFor(string(spec.ID), "").ref(), nil
}

func newID() []byte {
	id := make([]byte, idSize)
	_, _ = rand.Read(id) // never fails, see crypto/rand
	return id
}

// generateResident makes a key on the token. When it fails, nothing with its CKA_ID is left there.
func (b *Backend) generateResident(ctx context.Context, spec holdfast.KeySpec) (*residentKey, error) {
	fresh := spec.ID == nil
	if fresh {
		spec.ID = newID()
	}
	var pin *holdfast.Secret
	if spec.PIN == holdfast.PINAlways {
		secret, err := b.contextPIN(ctx)
		if err != nil {
			return nil, err
		}
		pin = &secret
	}
	var begun atomic.Bool
	k, err := askLong(ctx, b, func(s *session) (*residentKey, error) {
		switch {
		case begun.Load(): // and the token went away: what an earlier try left behind is ours
			if _, err := s.sweep(string(spec.ID)); err != nil {
				return nil, err
			}
		case !fresh:
			if err := s.vacant(string(spec.ID)); err != nil {
				return nil, err
			}
		}
		begun.Store(true)
		return b.makeResident(s, spec, pin)
	})
	if err != nil && begun.Load() {
		b.cleanUp(ctx, string(spec.ID))
	}
	return k, err
}

// vacant returns ErrExists when an object has the CKA_ID.
func (s *session) vacant(id string) error {
	objects, err := s.known()
	if err != nil {
		return err
	}
	if len(filter(objects, selector{id: &id})) > 0 {
		return holdfast.Errorf(holdfast.ErrExists, "", "the token has a key with this identifier already")
	}
	return nil
}

// cleanUp destroys what a failed Generate left. A token that is away keeps it; Destroy of the planned ref removes it later.
func (b *Backend) cleanUp(ctx context.Context, id string) {
	_ = b.run(context.WithoutCancel(ctx), func(s *session) error {
		_, err := s.sweep(id)
		return err
	})
}

// sweep destroys all key objects with a CKA_ID that Holdfast drew at random, and returns how many there were.
func (s *session) sweep(id string) (int, error) {
	if err := s.checkLogin(); err != nil {
		return 0, err
	}
	handles, err := s.find(attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, id))
	if err != nil {
		return 0, err
	}
	if err := s.destroy(handles...); err != nil {
		return 0, err
	}
	s.c.objects.remove(handles...)
	return len(handles), nil
}

// makeResident makes the key, reads back that it is protected, and uses it once.
func (b *Backend) makeResident(s *session, spec holdfast.KeySpec, pin *holdfast.Secret) (*residentKey, error) {
	p := b.profile.Load()
	a := spec.Algorithm
	w := want{token: true, restrict: p.restrict && !p.plainTokens.Load(), label: spec.Label, id: spec.ID, always: pin != nil}
	made, err := s.make(p, a, w)
	if w.restrict && (returned(err, vagueValues[:]...) || holdfast.CodeOf(failure("", "", err)) == holdfast.ErrUnsupported) {
		made, err = b.makePlain(s, p, a, w, err)
	}
	if err != nil {
		return nil, s.diagnose(p, a, w, err)
	}
	objects := []object{{made.private, pkcs11.CKO_SECRET_KEY, string(spec.ID), spec.Label}}
	var pub crypto.PublicKey
	if a.Use() != holdfast.UseEncrypt {
		objects[0].class = pkcs11.CKO_PRIVATE_KEY
		objects = append(objects, object{made.public, pkcs11.CKO_PUBLIC_KEY, string(spec.ID), spec.Label})
		if pub, err = s.readPublic(a, made.public); err != nil {
			return nil, err
		}
	}
	if err := s.checkProtected(made.private, w); err != nil {
		return nil, err
	}
	if err := b.testUse(s, p, a, made, pin); err != nil {
		return nil, err
	}
	s.c.objects.add(objects...)
	u := b.refFor(string(spec.ID), "")
	k := b.newResident(u.ref(), selectorOf(u), facts{a, pub, w.always})
	k.bind(s.c, s.c.objects.generation.Load(), b.faster(s, a, made.private, w.always))
	b.keys.Store(k.ref, k)
	return k, nil
}

// makePlain makes a token key without CKA_ALLOWED_MECHANISMS after the token refused it with: NSS takes the attribute for
// session keys and cannot store it.
func (b *Backend) makePlain(s *session, p *profile, a holdfast.Algorithm, w want, refused error) (pair, error) {
	w.restrict = false
	made, err := s.make(p, a, w)
	if err != nil {
		return pair{}, refused
	}
	p.plainTokens.Store(true)
	b.setCapabilities(p)
	if a.JOSE() == "PS256" {
		_ = s.destroy(made.private, made.public)
		return pair{}, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"this token cannot store that a key is for PS256 (CKA_ALLOWED_MECHANISMS: %w); make RS256 keys", refused)
	}
	return made, nil
}

// make generates a key in the way that discover found.
func (s *session) make(p *profile, a holdfast.Algorithm, w want) (pair, error) {
	g := p.ways[a]
	if a.Use() == holdfast.UseEncrypt {
		h, err := s.generateSecret(g.mech, secretTemplate(w))
		return pair{private: h}, err
	}
	return s.generatePair(pairTemplates(a, g.mech, g.params, w))
}

// diagnose finds out whether a token that makes keys cannot store them: full tokens often say no more than
// CKR_GENERAL_ERROR.
func (s *session) diagnose(p *profile, a holdfast.Algorithm, w want, err error) error {
	if !returned(err, vagueValues[:]...) {
		return err
	}
	w.token = false
	made, e := s.make(p, a, w)
	if e != nil {
		return err
	}
	_ = s.destroy(made.public, made.private)
	return holdfast.Errorf(holdfast.ErrBusy, "",
		"the token makes the key and cannot store it, so it is full or write-protected: destroy keys you no longer need (%w)", err)
}

// testUse uses a new key once.
func (b *Backend) testUse(s *session, p *profile, a holdfast.Algorithm, made pair, pin *holdfast.Secret) error {
	switch {
	case a.Use() == holdfast.UseEncrypt:
		return s.testEncrypt(made.private)
	case pin == nil:
		return s.probeUse(p, a, made)
	}
	pub, err := s.readPublic(a, made.public)
	if err != nil {
		return err
	}
	digest := testDigest(a)
	raw, err := s.signWithPIN(signMechanism(a), made.private, input(a, digest), *pin)
	if err != nil {
		return err
	}
	return checkSignature(a, pub, digest, raw)
}

// protections are the attributes that say a key cannot leave and never could.
var protections = [...]struct {
	kind  uint
	name  string
	value bool
}{
	{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", true},
	{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false},
	{pkcs11.CKA_LOCAL, "CKA_LOCAL", true},
	{pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", true},
	{pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", true},
}

// checkProtected reads back that a new key is what was asked for. A module that leaves an attribute out or gives it
// another value made a key that cannot be vouched for.
func (s *session) checkProtected(h pkcs11.ObjectHandle, w want) error {
	values, err := s.read(h, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_LOCAL, pkcs11.CKA_ALWAYS_SENSITIVE,
		pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_ALWAYS_AUTHENTICATE)
	if err != nil {
		return err
	}
	for _, p := range protections {
		if p.kind == pkcs11.CKA_LOCAL && s.c.profile.noHistory {
			continue // distrusted for it
		}
		if w.extractable && (p.kind == pkcs11.CKA_EXTRACTABLE || p.kind == pkcs11.CKA_NEVER_EXTRACTABLE) {
			continue
		}
		if !values.is(p.kind, p.value) {
			return holdfast.Errorf(holdfast.ErrUnsupported, "",
				"the module made a key whose %s is not %t, although it was asked for a protected one; do not use this module for keys", p.name, p.value)
		}
	}
	if w.always && !values.is(pkcs11.CKA_ALWAYS_AUTHENTICATE, true) {
		return holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the module made a key that does not ask for the PIN at every use")
	}
	return nil
}

// Destroy destroys the key that ref names: its private or secret object and its public object, or the public object that
// an interrupted Generate left. Objects that merely have the same CKA_ID are left alone: certificates, and public keys
// of other pairs.
func (b *Backend) Destroy(ctx context.Context, ref holdfast.Ref) error {
	u, err := b.checkRef(ref)
	if err != nil {
		return failure("destroy", ref, err)
	}
	err = b.run(ctx, func(s *session) error {
		all, err := s.enumerate()
		if err != nil {
			return err
		}
		doomed, err := s.belonging(all, filter(all, selectorOf(u)))
		if err != nil {
			return err
		}
		canonical := b.refFor(doomed[0].id, doomed[0].label).ref()
		for _, r := range []holdfast.Ref{u.ref(), canonical} {
			if k, ok := b.keys.LoadAndDelete(r); ok {
				k.(*residentKey).unbind(s)
			}
		}
		return s.destroyObjects(doomed)
	})
	return failure("destroy", ref, err)
}

// unbind makes the key look for itself again, and destroys its copy in the session if it has one.
func (k *residentKey) unbind(s *session) {
	at := k.bound.Swap(nil)
	if at != nil && at.c == s.c && k.b.cfg.SessionCopies {
		_ = s.destroy(at.handle) // the copy, or the key itself, which is about to be destroyed anyway
	}
}

// belonging returns what is to be destroyed with the one key among selected.
func (s *session) belonging(all, selected []object) ([]object, error) {
	key, err := one(selected)
	if holdfast.CodeOf(err) == holdfast.ErrNotFound {
		return s.leftovers(selected)
	}
	if err != nil {
		return nil, err
	}
	if reserved(key.label) {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "%q is for Holdfast's own use on this token", key.label)
	}
	doomed := []object{key}
	if key.class != pkcs11.CKO_PRIVATE_KEY {
		return doomed, nil
	}
	f, err := s.describe(key, all)
	for _, o := range all {
		if o.class != pkcs11.CKO_PUBLIC_KEY || o.id != key.id || key.id == "" && o.label != key.label {
			continue
		}
		own := o.label == key.label
		if err == nil {
			pub, e := s.readPublic(f.algorithm, o.handle)
			own = e == nil && samePublic(pub, f.public)
		}
		if own {
			doomed = append(doomed, o)
		}
	}
	return doomed, nil
}

// leftovers returns the public keys among selected that a Generate which was interrupted left without a private key:
// generated on the token, with a CKA_ID as Holdfast draws them.
func (s *session) leftovers(selected []object) ([]object, error) {
	var doomed []object
	for _, o := range selected {
		if o.class != pkcs11.CKO_PUBLIC_KEY || len(o.id) != idSize {
			continue
		}
		values, err := s.read(o.handle, pkcs11.CKA_LOCAL)
		if err != nil {
			return nil, err
		}
		if values.is(pkcs11.CKA_LOCAL, true) {
			doomed = append(doomed, o)
		}
	}
	if len(doomed) == 0 {
		return nil, holdfast.Errorf(holdfast.ErrNotFound, "", "there is no such key on the token")
	}
	return doomed, nil
}

// destroyObjects destroys objects and checks that the token no longer has them.
func (s *session) destroyObjects(doomed []object) error {
	for _, o := range doomed { // the private half comes first; a public one alone can be swept later
		if err := s.destroy(o.handle); err != nil && !returned(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
			return err
		}
		s.c.objects.remove(o.handle)
	}
	for _, o := range doomed {
		if _, err := s.read(o.handle, pkcs11.CKA_CLASS); err == nil {
			return holdfast.Errorf(holdfast.ErrInternal, "", "the token says that it destroyed %q and still has it", o.label)
		} else if !returned(err, handleValues[:]...) {
			return fmt.Errorf("check that the key is gone: %w", err)
		}
	}
	return nil
}
