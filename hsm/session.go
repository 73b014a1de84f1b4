//go:build cgo && !nopkcs11

package hsm

import (
	"errors"
	"fmt"
	"maps"

	"github.com/miekg/pkcs11"
)

// attributes are values read from an object. One that the object does not have, or does not show, is missing.
type attributes map[uint][]byte

// read reads attributes. Modules answer one call for several with an error when one of them is not there, so it then
// reads them one at a time. It fails when none can be read.
func (s *session) read(h pkcs11.ObjectHandle, types ...uint) (attributes, error) {
	out, err := s.readOnce(h, types...)
	if err == nil || returned(err, handleValues[:]...) || returned(err, lostValues[:]...) {
		return out, err
	}
	out = attributes{}
	for _, t := range types {
		one, e := s.readOnce(h, t)
		if e != nil {
			err = e
			continue
		}
		maps.Copy(out, one)
	}
	if len(out) == 0 {
		return nil, err
	}
	return out, nil
}

func (s *session) readOnce(h pkcs11.ObjectHandle, types ...uint) (attributes, error) {
	template := make([]*pkcs11.Attribute, len(types))
	for i, t := range types {
		template[i] = attr(t, nil)
	}
	list, err := s.p11.GetAttributeValue(s.handle, h, template)
	if err != nil {
		return nil, fmt.Errorf("C_GetAttributeValue: %w", err)
	}
	out := make(attributes, len(list))
	for _, a := range list {
		if a.Value != nil {
			out[a.Type] = a.Value
		}
	}
	return out, nil
}

// flag returns a CK_BBOOL attribute and whether it is there.
func (a attributes) flag(t uint) (value, ok bool) {
	v := a[t]
	if len(v) != 1 {
		return false, false
	}
	return v[0] != 0, true
}

// is reports whether a CK_BBOOL attribute is there and has the value.
func (a attributes) is(t uint, value bool) bool {
	v, ok := a.flag(t)
	return ok && v == value
}

// ulong returns a CK_ULONG attribute and whether it is there.
func (a attributes) ulong(t uint) (uint, bool) { return parseULong(a[t]) }

// checkLogin returns CKR_USER_NOT_LOGGED_IN when the user is no longer logged in. Private objects are then not reported
// as forbidden but not seen at all (PKCS#11 2.40, section 2.6): a key that is there looks as if it were not.
func (s *session) checkLogin() error {
	if !s.c.loggedIn {
		return nil
	}
	info, err := s.p11.GetSessionInfo(s.handle)
	if err != nil {
		return fmt.Errorf("C_GetSessionInfo: %w", err)
	}
	if info.State != pkcs11.CKS_RO_USER_FUNCTIONS && info.State != pkcs11.CKS_RW_USER_FUNCTIONS {
		return fmt.Errorf("another part of this process logged the user out: %w", pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN))
	}
	return nil
}

// find returns the handles of all objects that match template.
func (s *session) find(template ...*pkcs11.Attribute) (handles []pkcs11.ObjectHandle, err error) {
	if err := s.p11.FindObjectsInit(s.handle, template); err != nil {
		return nil, fmt.Errorf("C_FindObjectsInit: %w", err)
	}
	defer func() {
		if e := s.p11.FindObjectsFinal(s.handle); e != nil && err == nil {
			err = fmt.Errorf("C_FindObjectsFinal: %w", e)
		}
	}()
	const batch = 1000
	for {
		found, _, err := s.p11.FindObjects(s.handle, batch)
		if err != nil {
			return nil, fmt.Errorf("C_FindObjects: %w", err)
		}
		if len(found) == 0 {
			return handles, nil
		}
		handles = append(handles, found...)
	}
}

// destroy destroys objects and returns what went wrong with any of them. Handles of 0 are passed over.
func (s *session) destroy(handles ...pkcs11.ObjectHandle) error {
	var errs []error
	for _, h := range handles {
		if h == 0 {
			continue
		}
		if err := s.p11.DestroyObject(s.handle, h); err != nil {
			errs = append(errs, fmt.Errorf("C_DestroyObject: %w", err))
		}
	}
	return errors.Join(errs...)
}

// sign signs with a key whose mechanism takes data as it is.
func (s *session) sign(mech []*pkcs11.Mechanism, h pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	if d := s.c.mod.direct; d != nil {
		return d.sign(s, mech[0], h, data)
	}
	if err := s.p11.SignInit(s.handle, mech, h); err != nil {
		return nil, fmt.Errorf("C_SignInit: %w", err)
	}
	raw, err := s.p11.Sign(s.handle, data)
	if err != nil {
		return nil, fmt.Errorf("C_Sign: %w", err)
	}
	return raw, nil
}

// wrap wraps a key under another.
func (s *session) wrap(mech uint, kek, key pkcs11.ObjectHandle) ([]byte, error) {
	if d := s.c.mod.direct; d != nil {
		return d.wrap(s, mech, kek, key)
	}
	wrapped, err := s.p11.WrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}, kek, key)
	if err != nil {
		return nil, fmt.Errorf("C_WrapKey: %w", err)
	}
	return wrapped, nil
}

// pair is a generated key pair.
type pair struct{ public, private pkcs11.ObjectHandle }

func (s *session) generatePair(m []*pkcs11.Mechanism, pub, priv []*pkcs11.Attribute) (pair, error) {
	public, private, err := s.p11.GenerateKeyPair(s.handle, m, pub, priv)
	if err != nil {
		return pair{}, fmt.Errorf("C_GenerateKeyPair: %w", err)
	}
	return pair{public, private}, nil
}

func (s *session) generateSecret(mech uint, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	h, err := s.p11.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}, template)
	if err != nil {
		return 0, fmt.Errorf("C_GenerateKey: %w", err)
	}
	return h, nil
}

func (s *session) unwrap(mech uint, kek pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	h, err := s.p11.UnwrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}, kek, wrapped, template)
	if err != nil {
		return 0, fmt.Errorf("C_UnwrapKey: %w", err)
	}
	return h, nil
}
