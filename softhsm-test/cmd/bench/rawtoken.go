package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// rawSessions is how many sessions the raw token is used with: what SoftHSM2 is fastest with on two processors.
const rawSessions = 4

// rawToken is a SoftHSM2 token used directly: the base that the daemon is compared with. Its sessions are in a channel,
// from which every signature takes one.
type rawToken struct {
	p11  *pkcs11.Ctx
	pool chan pkcs11.SessionHandle
}

func openRawToken(t *softhsmtest.Token) (*rawToken, error) {
	if err := os.Setenv("SOFTHSM2_CONF", t.Conf); err != nil {
		return nil, err
	}
	r := &rawToken{p11: pkcs11.New(t.Module), pool: make(chan pkcs11.SessionHandle, rawSessions)}
	if r.p11 == nil {
		return nil, fmt.Errorf("%s cannot be loaded", t.Module)
	}
	if err := r.p11.Initialize(); err != nil {
		return nil, fmt.Errorf("C_Initialize: %w", err)
	}
	if err := r.login(t); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rawToken) login(t *softhsmtest.Token) error {
	slots, err := r.p11.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("C_GetSlotList: %w", err)
	}
	for _, slot := range slots {
		info, err := r.p11.GetTokenInfo(slot)
		if err != nil || info.SerialNumber != t.Serial {
			continue
		}
		for range rawSessions {
			s, err := r.p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return fmt.Errorf("C_OpenSession: %w", err)
			}
			if len(r.pool) == 0 { // the login is the token's, not the session's
				if err := r.p11.Login(s, pkcs11.CKU_USER, t.PIN); err != nil {
					return fmt.Errorf("C_Login: %w", err)
				}
			}
			r.pool <- s
		}
		return nil
	}
	return fmt.Errorf("there is no token with the serial number %s", t.Serial)
}

func (r *rawToken) close() error {
	err := r.p11.Finalize()
	r.p11.Destroy()
	return err
}

// Mechanisms of PKCS #11 version 3.0, section 2.3, that package pkcs11 has no names for.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// rawKind says how a kind of key is made and used.
type rawKind struct {
	generate, sign uint
	parameters     []*pkcs11.Attribute
	prefix         []byte // goes before the digest
}

// rawKindOf returns the kind of key for a, one of those measured here.
func rawKindOf(a holdfast.Algorithm) rawKind {
	curve := func(oid []byte) []*pkcs11.Attribute {
		return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, oid)}
	}
	switch a {
	case holdfast.ES256: // secp256r1, RFC 5480, section 2.1.1.1
		return rawKind{generate: pkcs11.CKM_EC_KEY_PAIR_GEN, sign: pkcs11.CKM_ECDSA,
			parameters: curve([]byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})}
	case holdfast.EdDSA: // id-Ed25519, RFC 8410, section 3
		return rawKind{generate: ckmECEdwardsKeyPairGen, sign: ckmEdDSA,
			parameters: curve([]byte{0x06, 0x03, 0x2b, 0x65, 0x70})}
	default: // DigestInfo with SHA-256, RFC 8017, section 9.2, note 1
		return rawKind{generate: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, sign: pkcs11.CKM_RSA_PKCS,
			parameters: []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, a.Bits()),
				pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
			},
			prefix: []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
				0x05, 0x00, 0x04, 0x20}}
	}
}

// signer makes a key on the token and returns the operation of signing message with it. One signature is checked with the
// token itself.
func (r *rawToken) signer(a holdfast.Algorithm, message []byte) (operation, error) {
	kind := rawKindOf(a)
	s := <-r.pool
	defer func() { r.pool <- s }()
	public := append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, string(a)),
	}, kind.parameters...)
	private := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, string(a)),
	}
	pub, priv, err := r.p11.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(kind.generate, nil)}, public, private)
	if err != nil {
		return operation{}, fmt.Errorf("C_GenerateKeyPair: %w", err)
	}
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(kind.sign, nil)}
	input := append(kind.prefix, a.Digest(message)...)
	sign := func(s pkcs11.SessionHandle) ([]byte, error) {
		if err := r.p11.SignInit(s, mechanism, priv); err != nil {
			return nil, fmt.Errorf("C_SignInit: %w", err)
		}
		return r.p11.Sign(s, input)
	}
	signature, err := sign(s)
	if err != nil {
		return operation{}, err
	}
	if err := r.p11.VerifyInit(s, mechanism, pub); err != nil {
		return operation{}, fmt.Errorf("C_VerifyInit: %w", err)
	}
	if err := r.p11.Verify(s, input, signature); err != nil {
		return operation{}, fmt.Errorf("C_Verify: %w", err)
	}
	return operation{signatures: 1, do: func(context.Context) error {
		s := <-r.pool
		_, err := sign(s)
		r.pool <- s
		return err
	}}, nil
}
