package softhsmtest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast/softhsm-test/vpiv"
)

// This file has piv-go use the card through the reader, as package token does.

// policies are those of most keys here.
func policies(algorithm piv.Algorithm) piv.Key {
	return piv.Key{Algorithm: algorithm, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever}
}

// factoryKey is the management key of new cards.
var factoryKey = piv.DefaultManagementKey

// checkSigner signs with a key in a card and verifies with the standard library.
func checkSigner(t *testing.T, key crypto.PrivateKey, public crypto.PublicKey) {
	t.Helper()
	signer, ok := key.(crypto.Signer)
	if !ok {
		t.Fatalf("%T does not sign", key)
	}
	message := []byte("message")
	digest := sha256.Sum256(message)
	input, opts := digest[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := public.(ed25519.PublicKey); ok {
		input, opts = message, crypto.Hash(0)
	}
	signature, err := signer.Sign(rand.Reader, input, opts)
	if err != nil {
		t.Fatal(err)
	}
	ok = false
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(public, input, signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(public, input, signature)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(public, crypto.SHA256, input, signature) == nil && checkPSS(t, signer, public, input)
	}
	if !ok {
		t.Error("the signature does not verify")
	}
}

func checkPSS(t *testing.T, signer crypto.Signer, public *rsa.PublicKey, digest []byte) bool {
	t.Helper()
	opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	signature, err := signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		t.Fatal(err)
	}
	return rsa.VerifyPSS(public, crypto.SHA256, digest, signature, opts) == nil
}

// checkAgreement agrees with a key in a card from both sides.
func checkAgreement(t *testing.T, key crypto.PrivateKey, public crypto.PublicKey) {
	t.Helper()
	agreer, ok := key.(interface {
		ECDH(*ecdh.PublicKey) ([]byte, error)
	})
	if !ok {
		t.Fatalf("%T does not agree", key)
	}
	point, ok := public.(*ecdh.PublicKey)
	if ec, isEC := public.(*ecdsa.PublicKey); isEC {
		var err error
		if point, err = ec.ECDH(); err != nil {
			t.Fatal(err)
		}
	} else if !ok {
		t.Fatalf("%T is no point", public)
	}
	peer, err := point.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(point)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := agreer.ECDH(peer.PublicKey()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the secrets differ: %v", err)
	}
}

// checkAttestation attests a key and verifies the attestation.
func checkAttestation(t *testing.T, yk *piv.YubiKey, card *vpiv.Card, slot piv.Slot, public crypto.PublicKey) {
	t.Helper()
	root, err := card.AttestationRoot()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	issuer, err := yk.AttestationCertificate()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := yk.Attest(slot)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil || !bytes.Equal(spki, certificate.RawSubjectPublicKeyInfo) {
		t.Errorf("the attestation is about another key (%v)", err)
	}
	got, err := (&piv.Verifier{Roots: roots}).Verify(issuer, certificate)
	if err != nil {
		t.Fatal(err)
	}
	want := piv.Attestation{
		Version: piv.Version{Major: 5, Minor: 7, Patch: 1}, Serial: card.Serial(), Formfactor: piv.FormfactorUSBAKeychain,
		PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever, Slot: slot,
	}
	if *got != want {
		t.Errorf("attestation %+v, want %+v", *got, want)
	}
}

func TestPIVAlgorithms(t *testing.T) {
	r := ReaderFor(t)
	card := newCard(t, vpiv.Config{Serial: 4711})
	insert(t, r, card)
	yk := open(t, r, 0)
	for _, test := range []struct {
		name        string
		algorithm   piv.Algorithm
		sign, agree bool
	}{
		{"P-256", piv.AlgorithmEC256, true, true},
		{"P-384", piv.AlgorithmEC384, true, true},
		{"Ed25519", piv.AlgorithmEd25519, true, false},
		{"X25519", piv.AlgorithmX25519, false, true},
		{"RSA-1024", piv.AlgorithmRSA1024, true, false},
		{"RSA-2048", piv.AlgorithmRSA2048, true, false},
		{"RSA-3072", piv.AlgorithmRSA3072, true, false},
		{"RSA-4096", piv.AlgorithmRSA4096, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			public, err := yk.GenerateKey(factoryKey, piv.SlotAuthentication, policies(test.algorithm))
			if err != nil {
				t.Fatal(err)
			}
			key, err := yk.PrivateKey(piv.SlotAuthentication, public, piv.KeyAuth{PIN: piv.DefaultPIN})
			if err != nil {
				t.Fatal(err)
			}
			if test.sign {
				checkSigner(t, key, public)
			}
			if test.agree {
				checkAgreement(t, key, public)
			}
			checkAttestation(t, yk, card, piv.SlotAuthentication, public)
			info, err := yk.KeyInfo(piv.SlotAuthentication)
			if err != nil || info.Algorithm != test.algorithm || info.Origin != piv.OriginGenerated ||
				info.PINPolicy != piv.PINPolicyOnce || info.TouchPolicy != piv.TouchPolicyNever {
				t.Errorf("metadata %+v, %v", info, err)
			}
		})
	}
}

func TestPIVDecrypt(t *testing.T) {
	r := ReaderFor(t)
	insert(t, r, newCard(t, vpiv.Config{}))
	yk := open(t, r, 0)
	public, err := yk.GenerateKey(factoryKey, piv.SlotKeyManagement, policies(piv.AlgorithmRSA2048))
	if err != nil {
		t.Fatal(err)
	}
	key, err := yk.PrivateKey(piv.SlotKeyManagement, public, piv.KeyAuth{PIN: piv.DefaultPIN})
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8017, section 7.2.1, by hand: the standard library discourages this padding, piv-go expects it.
	rsaPublic := public.(*rsa.PublicKey)
	block := append([]byte{0, 2}, bytes.Repeat([]byte{0xAA}, rsaPublic.Size()-9)...)
	block = append(block, "\x00secret"...)
	sealed := new(big.Int).Exp(new(big.Int).SetBytes(block), big.NewInt(int64(rsaPublic.E)), rsaPublic.N)
	got, err := key.(crypto.Decrypter).Decrypt(rand.Reader, sealed.FillBytes(make([]byte, rsaPublic.Size())), nil)
	if err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPIVPolicies(t *testing.T) {
	r := ReaderFor(t)
	card := newCard(t, vpiv.Config{})
	insert(t, r, card)
	yk := open(t, r, 0)
	digest := make([]byte, 32)
	digest[0] = 1
	sign := func(slot piv.Slot, public crypto.PublicKey, pin string) error {
		key, err := yk.PrivateKey(slot, public, piv.KeyAuth{PIN: pin})
		if err != nil {
			t.Fatal(err)
		}
		_, err = key.(crypto.Signer).Sign(rand.Reader, digest, crypto.SHA256)
		return err
	}
	generate := func(slot piv.Slot, pin piv.PINPolicy, touch piv.TouchPolicy) crypto.PublicKey {
		public, err := yk.GenerateKey(factoryKey, slot, piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: pin, TouchPolicy: touch})
		if err != nil {
			t.Fatal(err)
		}
		return public
	}
	never := generate(piv.SlotCardAuthentication, piv.PINPolicyNever, piv.TouchPolicyNever)
	always := generate(piv.SlotSignature, piv.PINPolicyAlways, piv.TouchPolicyNever)
	touch := generate(piv.SlotAuthentication, piv.PINPolicyNever, piv.TouchPolicyAlways)
	if err := sign(piv.SlotCardAuthentication, never, ""); err != nil {
		t.Errorf("never, without PIN: %v", err)
	}
	if err := sign(piv.SlotSignature, always, ""); err == nil {
		t.Error("always, without PIN: signed")
	}
	before := card.Seen(0x20)
	for range 2 {
		if err := sign(piv.SlotSignature, always, piv.DefaultPIN); err != nil {
			t.Errorf("always: %v", err)
		}
	}
	if n := card.Seen(0x20) - before; n != 2 {
		t.Errorf("the PIN was sent %d times for two signatures", n)
	}
	if err := sign(piv.SlotAuthentication, touch, ""); err != nil {
		t.Errorf("touched: %v", err)
	}
	card.SetTouch(false)
	if err := sign(piv.SlotAuthentication, touch, ""); err == nil {
		t.Error("not touched: signed")
	}
}

func TestPIVManagementKey(t *testing.T) {
	r := ReaderFor(t)
	insert(t, r, newCard(t, vpiv.Config{}))
	yk := open(t, r, 0)
	old := factoryKey
	for _, size := range []int{16, 24, 32, 24} {
		key := make([]byte, size)
		rand.Read(key)
		if err := yk.SetManagementKey(old, key); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if err := yk.SetManagementKey(old, key); err == nil {
			t.Errorf("%d bytes: the old key still opens the card", size)
		}
		old = key
	}
	if err := yk.SetMetadata(old, &piv.Metadata{ManagementKey: &old}); err != nil {
		t.Fatal(err)
	}
	if _, err := yk.Metadata("000000"); err == nil {
		t.Error("a wrong PIN shows the management key")
	}
	got, err := yk.Metadata(piv.DefaultPIN)
	if err != nil || got.ManagementKey == nil || !bytes.Equal(*got.ManagementKey, old) {
		t.Errorf("management key behind the PIN: %v, %v", got, err)
	}
}

func TestPIVReferences(t *testing.T) {
	r := ReaderFor(t)
	card := newCard(t, vpiv.Config{PIN: "246802", PUK: "13579135"})
	insert(t, r, card)
	yk := open(t, r, 0)
	var auth piv.AuthErr
	for left := 2; left >= 0; left-- {
		if err := yk.VerifyPIN("000000"); !errors.As(err, &auth) || auth.Retries != left {
			t.Errorf("wrong PIN: %v, want %d tries left", err, left)
		}
	}
	if err := yk.VerifyPIN("246802"); !errors.As(err, &auth) || auth.Retries != 0 {
		t.Errorf("blocked: %v", err)
	}
	if err := yk.Unblock("13579135", "111111"); err != nil {
		t.Error(err)
	}
	if err := yk.SetPIN("111111", "222222"); err != nil {
		t.Error(err)
	}
	if err := yk.SetPUK("13579135", "24680246"); err != nil {
		t.Error(err)
	}
	if err := yk.SetRetries(factoryKey, "222222", 5, 7); err != nil {
		t.Error(err)
	}
	if n, err := yk.Retries(); err != nil || n != 5 || card.PUKTries() != 7 {
		t.Errorf("%d and %d tries, %v", n, card.PUKTries(), err)
	}
	if err := yk.VerifyPIN(piv.DefaultPIN); err != nil {
		t.Error(err)
	}
}

func TestPIVReset(t *testing.T) {
	r := ReaderFor(t)
	insert(t, r, newCard(t, vpiv.Config{PIN: "246802", ManagementKey: bytes.Repeat([]byte{7}, 32)}))
	yk := open(t, r, 0)
	if err := yk.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := yk.VerifyPIN(piv.DefaultPIN); err != nil {
		t.Error(err)
	}
	if _, err := yk.GenerateKey(factoryKey, piv.SlotAuthentication, policies(piv.AlgorithmEC256)); err != nil {
		t.Error(err)
	}
	if _, err := yk.Attest(piv.SlotAuthentication); err != nil {
		t.Errorf("the attestation key was reset as well: %v", err)
	}
}

// selfSigned has a key in a card sign its own certificate.
func selfSigned(t *testing.T, key crypto.PrivateKey, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	from := time.Now().Add(-time.Hour)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "card"}, NotBefore: from, NotAfter: from.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestPIVCertificates(t *testing.T) {
	r := ReaderFor(t)
	insert(t, r, newCard(t, vpiv.Config{}))
	yk := open(t, r, 0)
	if _, err := yk.Certificate(piv.SlotAuthentication); !errors.Is(err, piv.ErrNotFound) {
		t.Errorf("no certificate: %v", err)
	}
	public, err := yk.GenerateKey(factoryKey, piv.SlotAuthentication, policies(piv.AlgorithmRSA2048))
	if err != nil {
		t.Fatal(err)
	}
	key, err := yk.PrivateKey(piv.SlotAuthentication, public, piv.KeyAuth{PIN: piv.DefaultPIN})
	if err != nil {
		t.Fatal(err)
	}
	certificate := selfSigned(t, key, public)
	if err := yk.SetCertificate(factoryKey, piv.SlotAuthentication, certificate); err != nil {
		t.Fatal(err)
	}
	if got, err := yk.Certificate(piv.SlotAuthentication); err != nil || !got.Equal(certificate) {
		t.Errorf("another certificate: %v", err)
	}
}

func TestPIVImport(t *testing.T) {
	r := ReaderFor(t)
	insert(t, r, newCard(t, vpiv.Config{}))
	yk := open(t, r, 0)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := yk.SetPrivateKeyInsecure(factoryKey, piv.SlotSignature, private, policies(0)); err != nil {
		t.Fatal(err)
	}
	key, err := yk.PrivateKey(piv.SlotSignature, private.Public(), piv.KeyAuth{PIN: piv.DefaultPIN})
	if err != nil {
		t.Fatal(err)
	}
	checkSigner(t, key, private.Public())
	if info, err := yk.KeyInfo(piv.SlotSignature); err != nil || info.Origin != piv.OriginImported {
		t.Errorf("metadata %+v, %v", info, err)
	}
	if _, err := yk.Attest(piv.SlotSignature); !errors.Is(err, piv.ErrNotFound) {
		t.Errorf("an imported key was attested: %v", err)
	}
}

func TestPIVOldCards(t *testing.T) {
	r := ReaderFor(t)
	for _, version := range [][3]byte{{4, 2, 7}, {4, 3, 5}, {5, 2, 4}} {
		card := newCard(t, vpiv.Config{Serial: 77, Version: version})
		if err := r.Insert(t.Context(), 0, card); err != nil {
			t.Fatal(err)
		}
		yk := open(t, r, 0)
		if n, err := yk.Serial(); err != nil || n != 77 {
			t.Errorf("%v: serial %d, %v", version, n, err)
		}
		if f, err := yk.FormFactor(); err != nil || f != piv.FormfactorUSBAKeychain {
			t.Errorf("%v: form factor %v, %v", version, f, err)
		}
		public, err := yk.GenerateKey(factoryKey, piv.SlotAuthentication, policies(piv.AlgorithmEC256))
		if err != nil {
			t.Fatalf("%v: %v", version, err)
		}
		key, err := yk.PrivateKey(piv.SlotAuthentication, public, piv.KeyAuth{PIN: piv.DefaultPIN})
		if err != nil {
			t.Fatalf("%v: %v", version, err)
		}
		checkSigner(t, key, public)
		if _, err := yk.GenerateKey(factoryKey, piv.SlotAuthentication, policies(piv.AlgorithmEd25519)); err == nil {
			t.Errorf("%v: Ed25519", version)
		}
		if _, err := yk.KeyInfo(piv.SlotAuthentication); err == nil {
			t.Errorf("%v: metadata", version)
		}
		if err := yk.Close(); err != nil {
			t.Error(err)
		}
		if err := r.Remove(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
}
