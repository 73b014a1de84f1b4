//go:build cgo && !nopkcs11

package hsm

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// profile is what was found out about a token by trying. It does not change while a backend is open.
type profile struct {
	mechanisms map[uint]pkcs11.MechanismInfo
	support    []holdfast.Support
	ways       map[holdfast.Algorithm]way
	restrict   bool    // CKA_ALLOWED_MECHANISMS is stored and read back
	peerDER    bool    // C_DeriveKey wants the peer's point in a DER OCTET STRING
	wrap       uint    // mechanism for C_WrapKey, 0 for none
	lockDown   bool    // CKA_UNWRAP_TEMPLATE is honoured
	trials     []trial // attempts to export a protected key
	noHistory  bool    // keys generated here have CKA_LOCAL false

	// plainTokens is set when the token turns out not to store CKA_ALLOWED_MECHANISMS although it does for session keys.
	plainTokens atomic.Bool

	loosenings []trial // attempts to unwrap a key so that it can be exported, in spite of CKA_UNWRAP_TEMPLATE
}

// way is how keys of one algorithm are generated.
type way struct {
	mech   uint
	params []byte // CKA_EC_PARAMS; nil for RSA and AES
}

// discover finds out what the token of s can do, by session keys that it destroys again. It cannot fail: what does not
// work is not offered.
func discover(s *session) *profile {
	p := &profile{mechanisms: s.mechanisms(), ways: map[holdfast.Algorithm]way{}}
	s.c.profile = p
	p.restrict = s.storesAllowedMechanisms(p)
	kek, _ := s.probeKEK(nil)
	defer func() { _ = s.destroy(kek) }()
	for _, a := range holdfast.Algorithms() {
		support := holdfast.Support{Algorithm: a}
		switch {
		case a.RSA():
			p.offersRSA(&support)
		case a.Use() == holdfast.UseEncrypt:
			s.probeSecret(p, kek, &support)
		default:
			s.probeCurve(p, kek, &support)
		}
		if support.Resident || support.Wrapped {
			p.support = append(p.support, support)
		}
	}
	s.selfTest(p, kek)
	s.tryLoosening(p)
	return p
}

// mechanisms asks for the mechanism list. A module that hides it has none.
func (s *session) mechanisms() map[uint]pkcs11.MechanismInfo {
	out := map[uint]pkcs11.MechanismInfo{}
	list, err := s.p11.GetMechanismList(s.c.slot)
	if err != nil {
		return out
	}
	for _, m := range list {
		if info, err := s.p11.GetMechanismInfo(s.c.slot, []*pkcs11.Mechanism{m}); err == nil {
			out[m.Mechanism] = info
		}
	}
	return out
}

// can reports whether the token has the mechanism for all functions in flags.
func (p *profile) can(mech, flags uint) bool {
	info, ok := p.mechanisms[mech]
	return ok && info.Flags&flags == flags
}

// generators returns the ways in which keys of a might be generated, to be tried in order.
func (p *profile) generators(a holdfast.Algorithm) []way {
	c := curveOf(a)
	if c == nil {
		return nil
	}
	mechs := []uint{pkcs11.CKM_EC_KEY_PAIR_GEN}
	switch a {
	case holdfast.EdDSA:
		mechs = []uint{ckmEdwardsKeyPairGen}
	case holdfast.ECDHX25519:
		// The standard wants the second. SoftHSM2 makes X25519 keys by the first only.
		mechs = []uint{ckmMontgomeryKeyPairGen, ckmEdwardsKeyPairGen}
	}
	var ways []way
	for _, m := range mechs {
		if p.can(m, pkcs11.CKF_GENERATE_KEY_PAIR) {
			for _, params := range c.params {
				ways = append(ways, way{m, params})
			}
		}
	}
	return ways
}

// usable reports whether the mechanism that keys of a are used with is there.
func (p *profile) usable(a holdfast.Algorithm) bool {
	flags := map[holdfast.Use]uint{
		holdfast.UseSign: pkcs11.CKF_SIGN, holdfast.UseAgree: pkcs11.CKF_DERIVE,
		holdfast.UseEncrypt: pkcs11.CKF_ENCRYPT | pkcs11.CKF_DECRYPT,
	}
	return p.can(useMechanism(a), flags[a.Use()])
}

// storesAllowedMechanisms reports whether a key can be restricted to one mechanism. It is also how a PS256 key is told
// from an RS256 key when it is found again.
func (s *session) storesAllowedMechanisms(p *profile) bool {
	for _, g := range p.generators(holdfast.ES256) {
		made, err := s.generatePair(pairTemplates(holdfast.ES256, g.mech, g.params, want{restrict: true}))
		if err != nil {
			continue
		}
		values, err := s.read(made.private, pkcs11.CKA_ALLOWED_MECHANISMS)
		_ = s.destroy(made.public, made.private)
		return err == nil && bytes.Equal(values[pkcs11.CKA_ALLOWED_MECHANISMS], ulongs(pkcs11.CKM_ECDSA))
	}
	return false
}

// offersRSA decides by the mechanism list: an RSA key takes too long to be made for a try. That it can be wrapped is
// inferred from other keys, and tried at every Generate.
func (p *profile) offersRSA(support *holdfast.Support) {
	a := support.Algorithm
	info := p.mechanisms[pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN]
	if !p.can(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, pkcs11.CKF_GENERATE_KEY_PAIR) || !p.usable(a) ||
		uint(a.Bits()) > info.MaxKeySize || uint(a.Bits()) < info.MinKeySize {
		return
	}
	if a.JOSE() == "PS256" && !p.restrict {
		return // found again, it would look like RS256
	}
	p.ways[a] = way{mech: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN}
	support.Resident, support.Wrapped = true, p.wrap != 0
}

// probeCurve makes a session key on the curve in each possible way until one works, uses and wraps it.
func (s *session) probeCurve(p *profile, kek pkcs11.ObjectHandle, support *holdfast.Support) {
	a := support.Algorithm
	if !p.usable(a) {
		return
	}
	for _, g := range p.generators(a) {
		for _, extractable := range []bool{true, false} { // some tokens refuse to make keys that can be wrapped
			made, err := s.generatePair(pairTemplates(a, g.mech, g.params, want{extractable: extractable, restrict: p.restrict}))
			if err != nil {
				continue
			}
			if s.probeUse(p, a, made) == nil {
				p.ways[a] = g
				support.Resident = true
				support.Wrapped = extractable && s.probeWrap(p, kek, a, made)
			}
			_ = s.destroy(made.public, made.private)
			if support.Resident {
				return
			}
		}
	}
}

// probeUse uses a key pair once.
func (s *session) probeUse(p *profile, a holdfast.Algorithm, made pair) error {
	pub, err := s.readPublic(a, made.public)
	if err != nil {
		return err
	}
	if a.Use() == holdfast.UseSign {
		return s.testSign(a, made.private, pub)
	}
	peer, err := pub.(*ecdh.PublicKey).Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	// PKCS#11 2.40 lets a token insist on either encoding of the peer's point.
	for _, der := range []bool{p.peerDER, !p.peerDER} {
		if err = s.testAgree(made.private, pub.(*ecdh.PublicKey), peer, der); err == nil {
			p.peerDER = der
			return nil
		}
	}
	return err
}

// probeSecret does for AES-256 what probeCurve does for curves.
func (s *session) probeSecret(p *profile, kek pkcs11.ObjectHandle, support *holdfast.Support) {
	if !p.usable(support.Algorithm) || !p.can(pkcs11.CKM_AES_KEY_GEN, pkcs11.CKF_GENERATE) {
		return
	}
	for _, extractable := range []bool{true, false} {
		h, err := s.generateSecret(pkcs11.CKM_AES_KEY_GEN, secretTemplate(want{extractable: extractable, restrict: p.restrict}))
		if err != nil {
			continue
		}
		if s.testEncrypt(h) == nil {
			p.ways[support.Algorithm] = way{mech: pkcs11.CKM_AES_KEY_GEN}
			support.Resident = true
			support.Wrapped = extractable && s.probeWrap(p, kek, support.Algorithm, pair{private: h})
		}
		_ = s.destroy(h)
		return
	}
}

// wrapMechanisms lists the mechanisms tried for wrapping, best first: RFC 5649 by its own name, then the older name
// under which modules do either RFC 5649 or PKCS#7 padding, then RFC 3394 for which the key must have the right length.
var wrapMechanisms = [...]uint{ckmAESKeyWrapKWP, pkcs11.CKM_AES_KEY_WRAP_PAD, pkcs11.CKM_AES_KEY_WRAP}

// probeWrap wraps a session key, unwraps it, and uses the outcome.
func (s *session) probeWrap(p *profile, kek pkcs11.ObjectHandle, a holdfast.Algorithm, made pair) bool {
	if kek == 0 || !p.can(pkcs11.CKM_SHA256_HMAC, pkcs11.CKF_SIGN) || !p.can(pkcs11.CKM_GENERIC_SECRET_KEY_GEN, pkcs11.CKF_GENERATE) {
		return false
	}
	for _, mech := range wrapMechanisms {
		if p.wrap != 0 && p.wrap != mech || !p.can(mech, pkcs11.CKF_WRAP|pkcs11.CKF_UNWRAP) {
			continue
		}
		wrapped, err := s.wrap(mech, kek, made.private)
		if err != nil {
			continue
		}
		g := p.ways[a]
		h, err := s.unwrap(mech, kek, wrapped, unwrapTemplate(a, keyType(a, g.mech), want{}))
		if err != nil {
			continue
		}
		err = s.probeUnwrapped(p, a, pair{made.public, h})
		_ = s.destroy(h)
		if err == nil {
			p.wrap = mech
			return true
		}
	}
	return false
}

func (s *session) probeUnwrapped(p *profile, a holdfast.Algorithm, made pair) error {
	if err := s.tighten(made.private); err != nil {
		return err
	}
	if a.Use() == holdfast.UseEncrypt {
		return s.testEncrypt(made.private)
	}
	return s.probeUse(p, a, made)
}

// probeKEK makes a key-wrapping key in the session.
func (s *session) probeKEK(unwrap *arrayTemplate) (pkcs11.ObjectHandle, error) {
	return s.generateSecret(pkcs11.CKM_AES_KEY_GEN, kekTemplate(want{}, kekOptions{unwrap: unwrap}))
}

// distrust returns Capabilities.Distrust.
func (p *profile) distrust() string {
	var escapes []string
	for _, t := range p.trials {
		if t.escaped {
			escapes = append(escapes, t.name)
		}
	}
	switch {
	case len(escapes) > 0:
		return "the module gives protected keys away: " + strings.Join(escapes, ", ") + " worked on a key that is sensitive and not extractable"
	case p.noHistory:
		return "the module says of keys it has just generated that they came from elsewhere (CKA_LOCAL is false)"
	case len(p.trials) == 0:
		return "the module makes no session keys, so that it keeps protected keys in could not be tested"
	}
	return ""
}

// supported returns Capabilities.Algorithms.
func (p *profile) supported() []holdfast.Support {
	list := slices.Clone(p.support)
	for i := range list {
		if list[i].Algorithm.JOSE() == "PS256" && p.plainTokens.Load() {
			list[i].Resident = false
		}
	}
	return slices.DeleteFunc(list, func(s holdfast.Support) bool { return !s.Resident && !s.Wrapped })
}

// wrappable reports whether keys of a can be wrapped.
func (p *profile) wrappable(a holdfast.Algorithm) bool {
	return slices.ContainsFunc(p.support, func(s holdfast.Support) bool { return s.Algorithm == a && s.Wrapped })
}
