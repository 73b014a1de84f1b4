//go:build cgo && !nopkcs11

package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// readPublic reads the public half of a key of algorithm a from its public object.
func (s *session) readPublic(a holdfast.Algorithm, h pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	if a.RSA() {
		values, err := s.read(h, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT)
		if err != nil {
			return nil, err
		}
		return rsaPublic(values)
	}
	values, err := s.read(h, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	point, err := curveOf(a).rawPoint(values[pkcs11.CKA_EC_POINT])
	if err != nil {
		return nil, err
	}
	return publicFromPoint(a, point)
}

func rsaPublic(values attributes) (crypto.PublicKey, error) {
	n, e := new(big.Int).SetBytes(values[pkcs11.CKA_MODULUS]), new(big.Int).SetBytes(values[pkcs11.CKA_PUBLIC_EXPONENT])
	if n.Sign() == 0 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, errors.New("CKA_MODULUS or CKA_PUBLIC_EXPONENT is missing or out of range")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// input returns what the mechanism of algorithm a takes for a digest (for EdDSA, a message).
func input(a holdfast.Algorithm, digest []byte) []byte {
	if a.JOSE() == "RS256" {
		return append(bytes.Clone(digestInfoSHA256), digest...)
	}
	return digest
}

// output turns what C_Sign returned into the signature that holdfast.Key documents.
func output(a holdfast.Algorithm, raw []byte) ([]byte, error) {
	if useMechanism(a) == pkcs11.CKM_ECDSA {
		return ecdsaDER(a, raw, curveOf(a).size)
	}
	want := a.Bits() / 8
	if a == holdfast.EdDSA {
		want = 64
	}
	if len(raw) != want {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the token returned a signature of %d bytes instead of %d", len(raw), want)
	}
	return raw, nil
}

// testDigest is what new keys sign to show that they can.
func testDigest(a holdfast.Algorithm) []byte { return a.Digest([]byte("holdfast test signature")) }

// testSign makes a signature and verifies it with the standard library.
func (s *session) testSign(a holdfast.Algorithm, h pkcs11.ObjectHandle, pub crypto.PublicKey) error {
	digest := testDigest(a)
	raw, err := s.sign(signMechanism(a), h, input(a, digest))
	if err != nil {
		return err
	}
	return checkSignature(a, pub, digest, raw)
}

func checkSignature(a holdfast.Algorithm, pub crypto.PublicKey, digest, raw []byte) error {
	signature, err := output(a, raw)
	if err != nil {
		return err
	}
	if err := holdfast.Verify(a, pub, digest, signature); err != nil {
		return fmt.Errorf("the test signature: %w", err)
	}
	return nil
}

// derive agrees with peer, a raw point, on size bytes. The shared secret is a session object for as long as it takes to
// read it: it is the caller's to know, the private key is not.
func (s *session) derive(h pkcs11.ObjectHandle, peer []byte, size int, der bool) ([]byte, error) {
	if der {
		var err error
		if peer, err = asn1.Marshal(peer); err != nil {
			return nil, err
		}
	}
	mech := pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, peer))
	secret, err := s.p11.DeriveKey(s.handle, []*pkcs11.Mechanism{mech}, h, []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_SENSITIVE, false), attr(pkcs11.CKA_EXTRACTABLE, true),
		attr(pkcs11.CKA_VALUE_LEN, size),
	})
	if err != nil {
		return nil, fmt.Errorf("C_DeriveKey: %w", err)
	}
	values, err := s.read(secret, pkcs11.CKA_VALUE)
	if e := s.destroy(secret); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	shared := values[pkcs11.CKA_VALUE]
	if len(shared) != size {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the token returned a shared secret of %d bytes instead of %d", len(shared), size)
	}
	return shared, nil
}

// testAgree agrees with a key made here and compares.
func (s *session) testAgree(h pkcs11.ObjectHandle, pub *ecdh.PublicKey, peer *ecdh.PrivateKey, der bool) error {
	want, err := peer.ECDH(pub)
	if err != nil {
		return err
	}
	got, err := s.derive(h, peer.PublicKey().Bytes(), len(want), der)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the test agreement: the token agrees on another secret than its public key says")
	}
	return nil
}

const (
	nonceSize = 12
	tagSize   = 16
)

// encrypt returns nonce, ciphertext and tag.
func (s *session) encrypt(h pkcs11.ObjectHandle, plaintext, additionalData []byte) ([]byte, error) {
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	params := pkcs11.NewGCMParams(nonce, additionalData, 8*tagSize)
	defer params.Free()
	if err := s.p11.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, fmt.Errorf("C_EncryptInit: %w", err)
	}
	out, err := s.p11.Encrypt(s.handle, plaintext)
	if err != nil {
		return nil, fmt.Errorf("C_Encrypt: %w", err)
	}
	if len(out) != len(plaintext)+tagSize {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the token returned %d bytes of ciphertext for %d", len(out), len(plaintext))
	}
	if used := params.IV(); len(used) == nonceSize {
		nonce = used // tokens approved under FIPS 140 replace it by one of their own
	}
	return append(nonce, out...), nil
}

// errForged means that C_Decrypt did not like the ciphertext.
type errForged struct{ error }

func (e errForged) Unwrap() error { return e.error }

// decrypt returns the plaintext, and errForged when C_Decrypt itself fails.
func (s *session) decrypt(h pkcs11.ObjectHandle, sealed, additionalData []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(sealed[:nonceSize], additionalData, 8*tagSize)
	defer params.Free()
	if err := s.p11.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, fmt.Errorf("C_DecryptInit: %w", err)
	}
	out, err := s.p11.Decrypt(s.handle, sealed[nonceSize:])
	if err != nil {
		return nil, errForged{fmt.Errorf("C_Decrypt: %w", err)}
	}
	return out, nil
}

// testEncrypt encrypts and decrypts.
func (s *session) testEncrypt(h pkcs11.ObjectHandle) error {
	text, data := []byte("holdfast test"), []byte("additional data")
	sealed, err := s.encrypt(h, text, data)
	if err != nil {
		return err
	}
	got, err := s.decrypt(h, sealed, data)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the test encryption: decrypting returns another text")
	}
	return nil
}
