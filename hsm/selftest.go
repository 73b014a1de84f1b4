//go:build cgo && !nopkcs11

package hsm

import (
	"github.com/miekg/pkcs11"

	"holdfast"
)

// trial is one attempt to get a protected key out of the token.
type trial struct {
	name    string // "C_WrapKey"
	outcome string // the CKR_ that came back, and what it was worth
	escaped bool
}

// selfTest makes a session key that is sensitive and not extractable and tries everything by which careless modules
// give such keys away: NSS softokn wraps it, and copies it into an extractable one.
func (s *session) selfTest(p *profile, kek pkcs11.ObjectHandle) {
	for _, victim := range []func(*session, *profile) (pair, bool){sacrificePair, sacrificeSecret} {
		made, ok := victim(s, p)
		if !ok {
			continue
		}
		values, err := s.read(made.private, pkcs11.CKA_LOCAL)
		p.noHistory = err != nil || !values.is(pkcs11.CKA_LOCAL, true)
		p.trials = append(s.tryReading(made.private), s.tryWrapping(p, kek, made.private)...)
		p.trials = append(p.trials, s.tryChanging(made.private)...)
		_ = s.destroy(made.public, made.private)
		return
	}
}

func sacrificePair(s *session, p *profile) (pair, bool) {
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.ES384, holdfast.EdDSA} {
		g, ok := p.ways[a]
		if !ok {
			continue
		}
		if made, err := s.generatePair(pairTemplates(a, g.mech, g.params, want{})); err == nil {
			return made, true
		}
	}
	return pair{}, false
}

func sacrificeSecret(s *session, _ *profile) (pair, bool) {
	h, err := s.generateSecret(pkcs11.CKM_AES_KEY_GEN, secretTemplate(want{}))
	return pair{private: h}, err == nil
}

// tryReading asks for the key's value.
func (s *session) tryReading(h pkcs11.ObjectHandle) []trial {
	values, err := s.readOnce(h, pkcs11.CKA_VALUE)
	return []trial{{"C_GetAttributeValue of CKA_VALUE", ckrName(err), err == nil && len(values[pkcs11.CKA_VALUE]) > 0}}
}

// tryWrapping wraps the key, which is not extractable.
func (s *session) tryWrapping(p *profile, kek, h pkcs11.ObjectHandle) []trial {
	var out []trial
	for _, mech := range append(wrapMechanisms[:], pkcs11.CKM_AES_CBC_PAD) {
		if kek == 0 || !p.can(mech, pkcs11.CKF_WRAP) {
			continue
		}
		m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}
		if mech == pkcs11.CKM_AES_CBC_PAD {
			m = []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, make([]byte, 16))}
		}
		wrapped, err := s.p11.WrapKey(s.handle, m, kek, h)
		out = append(out, trial{"C_WrapKey with " + mechanismName(mech), ckrName(err), err == nil && len(wrapped) > 0})
	}
	return out
}

// mechanismName returns the name of a mechanism used for wrapping.
func mechanismName(mech uint) string {
	switch mech {
	case ckmAESKeyWrapKWP:
		return "CKM_AES_KEY_WRAP_KWP"
	case pkcs11.CKM_AES_KEY_WRAP_PAD:
		return "CKM_AES_KEY_WRAP_PAD"
	case pkcs11.CKM_AES_KEY_WRAP:
		return "CKM_AES_KEY_WRAP"
	case pkcs11.CKM_AES_CBC_PAD:
		return "CKM_AES_CBC_PAD"
	}
	return "none"
}

// tryChanging copies the key with weaker attributes, then weakens its own.
func (s *session) tryChanging(h pkcs11.ObjectHandle) []trial {
	weaker := []struct {
		name  string
		kind  uint
		value bool
	}{{"CKA_EXTRACTABLE true", pkcs11.CKA_EXTRACTABLE, true}, {"CKA_SENSITIVE false", pkcs11.CKA_SENSITIVE, false}}
	var out []trial
	for _, w := range weaker {
		copied, err := s.p11.CopyObject(s.handle, h, []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, false), attr(w.kind, w.value)})
		out = append(out, trial{"C_CopyObject with " + w.name, ckrName(err), err == nil && s.weak(copied, w.kind, w.value)})
		if err == nil {
			_ = s.destroy(copied)
		}
	}
	for _, w := range weaker {
		err := s.p11.SetAttributeValue(s.handle, h, []*pkcs11.Attribute{attr(w.kind, w.value)})
		out = append(out, trial{"C_SetAttributeValue with " + w.name, ckrName(err), err == nil && s.weak(h, w.kind, w.value)})
	}
	return out
}

// weak reports whether the attribute has the value, so that a module which only says that it obeyed is not blamed.
func (s *session) weak(h pkcs11.ObjectHandle, kind uint, value bool) bool {
	values, err := s.read(h, kind)
	return err != nil || values.is(kind, value)
}
