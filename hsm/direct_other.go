//go:build cgo && !nopkcs11 && !unix

package hsm

import "github.com/miekg/pkcs11"

const outputRoom = 0

// direct is nothing where structures of PKCS#11 are packed: miekg/pkcs11 makes all calls there.
type direct struct{}

func newDirect(string) *direct { return nil }

func (*direct) sign(*session, *pkcs11.Mechanism, pkcs11.ObjectHandle, []byte) ([]byte, error) {
	return nil, pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
}

func (*direct) wrap(*session, uint, pkcs11.ObjectHandle, pkcs11.ObjectHandle) ([]byte, error) {
	return nil, pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
}
