//go:build cgo && !nopkcs11

package hsm

import (
	"slices"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// Who may unwrap a key may ask for it to be exportable, unless the key-wrapping key has a CKA_UNWRAP_TEMPLATE and the
// module honours it. Whether it does is tried out on a session key.

// tryLoosening unwraps a wrapped key in the ways a thief would, and says in p.lockDown whether all of them failed.
func (s *session) tryLoosening(p *profile) {
	g, ok := p.ways[holdfast.ES256]
	if p.wrap == 0 || !ok || !canLockDown {
		return
	}
	unwrap := lockDown()
	defer unwrap.release()
	kek, err := s.probeKEK(unwrap)
	if err != nil {
		p.loosenings = []trial{{"C_GenerateKey with CKA_UNWRAP_TEMPLATE", ckrName(err), true}}
		return
	}
	defer func() { _ = s.destroy(kek) }()
	made, err := s.generatePair(pairTemplates(holdfast.ES256, g.mech, g.params, want{extractable: true}))
	if err != nil {
		return
	}
	defer func() { _ = s.destroy(made.public, made.private) }()
	wrapped, err := s.wrap(p.wrap, kek, made.private)
	if err != nil {
		return
	}
	p.loosenings = append(s.loosen(p, kek, wrapped), s.replaceTemplate(p, kek, wrapped))
	p.lockDown = true
	for _, t := range p.loosenings {
		p.lockDown = p.lockDown && !t.escaped
	}
}

// exportable is what a thief wants of an unwrapped key.
func exportable() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{attr(pkcs11.CKA_SENSITIVE, false), attr(pkcs11.CKA_EXTRACTABLE, true)}
}

// loosen makes the attempts that do not change the key-wrapping key: asking for an exportable key, not saying what it
// should be, and asking under a copy of the key-wrapping key with another template.
func (s *session) loosen(p *profile, kek pkcs11.ObjectHandle, wrapped []byte) []trial {
	out := []trial{
		s.unwrapLoose("C_UnwrapKey with CKA_EXTRACTABLE true", p, kek, wrapped, exportable()),
		s.unwrapLoose("C_UnwrapKey without CKA_EXTRACTABLE", p, kek, wrapped, nil),
	}
	open := newArrayTemplate(pkcs11.CKA_UNWRAP_TEMPLATE, exportable())
	defer open.release()
	const name = "C_CopyObject of the key-wrapping key with another CKA_UNWRAP_TEMPLATE"
	copied, err := s.p11.CopyObject(s.handle, kek, []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, false), open.attribute})
	if err != nil {
		return append(out, trial{name, ckrName(err), false})
	}
	defer func() { _ = s.destroy(copied) }()
	return append(out, s.unwrapLoose(name, p, copied, wrapped, exportable()))
}

// replaceTemplate makes the attempt that changes the key-wrapping key.
func (s *session) replaceTemplate(p *profile, kek pkcs11.ObjectHandle, wrapped []byte) trial {
	open := newArrayTemplate(pkcs11.CKA_UNWRAP_TEMPLATE, exportable())
	defer open.release()
	const name = "C_SetAttributeValue of CKA_UNWRAP_TEMPLATE"
	if err := s.p11.SetAttributeValue(s.handle, kek, []*pkcs11.Attribute{open.attribute}); err != nil {
		return trial{name, ckrName(err), false}
	}
	return s.unwrapLoose(name, p, kek, wrapped, exportable())
}

// unwrapLoose unwraps an EC key and looks whether it can be exported.
func (s *session) unwrapLoose(name string, p *profile, kek pkcs11.ObjectHandle, wrapped []byte, loose []*pkcs11.Attribute) trial {
	template := append([]*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_SIGN, true),
		attr(pkcs11.CKA_KEY_TYPE, keyType(holdfast.ES256, p.ways[holdfast.ES256].mech)),
	}, loose...)
	h, err := s.unwrap(p.wrap, kek, wrapped, template)
	if err != nil {
		return trial{name, ckrName(err), false}
	}
	defer func() { _ = s.destroy(h) }()
	values, err := s.read(h, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE)
	tight := err == nil && values.is(pkcs11.CKA_SENSITIVE, true) && values.is(pkcs11.CKA_EXTRACTABLE, false)
	return trial{name, ckrName(nil), !tight}
}

// loosens reports whether what the key-wrapping key kek on the token wraps can be unwrapped so that it can be exported.
// Somebody with the PIN may have put it there without a CKA_UNWRAP_TEMPLATE. What cannot be tried counts as true.
func (s *session) loosens(kek pkcs11.ObjectHandle) bool {
	p := s.c.profile
	g, ok := p.ways[holdfast.ES256]
	values, err := s.read(kek, pkcs11.CKA_MODIFIABLE)
	if !ok || err != nil || !values.is(pkcs11.CKA_MODIFIABLE, false) {
		return true
	}
	made, err := s.generatePair(pairTemplates(holdfast.ES256, g.mech, g.params, want{extractable: true}))
	if err != nil {
		return true
	}
	defer func() { _ = s.destroy(made.public, made.private) }()
	wrapped, err := s.wrap(p.wrap, kek, made.private)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(s.loosen(p, kek, wrapped), func(t trial) bool { return t.escaped })
}
