//go:build cgo && !nopkcs11 && !unix

package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

const outputRoom = 0

// direct is nothing where structures of PKCS#11 are packed: miekg/pkcs11 makes all calls there.
type direct struct{}

func newDirect(string) *direct { return &direct{} }

func (s *session) sign(mech []*pkcs11.Mechanism, h pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	if err := s.p11.SignInit(s.handle, mech, h); err != nil {
		return nil, fmt.Errorf("C_SignInit: %w", err)
	}
	raw, err := s.p11.Sign(s.handle, data)
	if err != nil {
		return nil, fmt.Errorf("C_Sign: %w", err)
	}
	return raw, nil
}

func (s *session) wrap(mech uint, kek, key pkcs11.ObjectHandle) ([]byte, error) {
	wrapped, err := s.p11.WrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}, kek, key)
	if err != nil {
		return nil, fmt.Errorf("C_WrapKey: %w", err)
	}
	return wrapped, nil
}
