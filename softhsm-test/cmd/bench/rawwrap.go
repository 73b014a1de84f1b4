package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// ckmAESKeyWrapPad is CKM_AES_KEY_WRAP_PAD as SoftHSM2 numbers it.
const ckmAESKeyWrapPad = 0x210A

// wrapper returns the operation of making a wrapped P-256 key with nothing around it: a pair of session objects is
// generated, the private key wrapped under an AES key on the token, and the pair destroyed.
func (r *rawToken) wrapper() (operation, error) {
	s := <-r.pool
	defer func() { r.pool <- s }()
	kek, err := r.p11.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
	})
	if err != nil {
		return operation{}, fmt.Errorf("C_GenerateKey: %w", err)
	}
	return operation{signatures: 1, do: func(context.Context) error {
		s := <-r.pool
		defer func() { r.pool <- s }()
		return r.wrapOne(s, kek)
	}}, nil
}

func (r *rawToken) wrapOne(s pkcs11.SessionHandle, kek pkcs11.ObjectHandle) error {
	kind := rawKindOf(holdfast.ES256)
	public := append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}, kind.parameters...)
	private := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
	}
	pub, priv, err := r.p11.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(kind.generate, nil)}, public, private)
	if err != nil {
		return fmt.Errorf("C_GenerateKeyPair: %w", err)
	}
	_, err = r.p11.WrapKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmAESKeyWrapPad, nil)}, kek, priv)
	return errors.Join(err, r.p11.DestroyObject(s, pub), r.p11.DestroyObject(s, priv))
}
