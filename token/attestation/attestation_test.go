package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"maps"
	"math/big"
	"testing"
	"time"

	"holdfast"
)

// maker is a maker of cards, and one card of it.
type maker struct {
	roots *x509.CertPool
	ca    *x509.Certificate
	key   crypto.Signer // of the card's attestation
}

func newMaker(t testing.TB, attestationKey crypto.Signer, change func(ca *x509.Certificate)) *maker {
	t.Helper()
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	root = issue(t, root, root, rootKey.Public(), rootKey)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Card"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: root.NotBefore, NotAfter: root.NotAfter,
	}
	if change != nil {
		change(template)
	}
	ca := issue(t, template, root, attestationKey.Public(), rootKey)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return &maker{roots: roots, ca: ca, key: attestationKey}
}

func issue(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func extensions(policy ...byte) []pkix.Extension {
	oid := func(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n} }
	serial, _ := asn1.Marshal(13370000)
	return []pkix.Extension{
		{Id: oid(3), Value: []byte{5, 7, 1}}, {Id: oid(7), Value: serial}, {Id: oid(8), Value: policy}, {Id: oid(9), Value: []byte{3}},
	}
}

// attest makes the evidence that the card would make for a key in slot 9c.
func (m *maker) attest(t testing.TB, a holdfast.Algorithm, public crypto.PublicKey, signer crypto.Signer,
	challenge []byte,
) map[string][]byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "YubiKey PIV Attestation 9c"},
		NotBefore: m.ca.NotBefore, NotAfter: m.ca.NotAfter, ExtraExtensions: extensions(2, 3),
	}
	files := map[string][]byte{FileCA: m.ca.Raw}
	if _, ok := public.(*ecdh.PublicKey); ok { // which x509.CreateCertificate does not take
		placeholder := p256(t).Public()
		files[FileSlot] = m.edit(t, issue(t, template, m.ca, placeholder, m.key).Raw, spki(t, placeholder), spki(t, public))
	} else {
		files[FileSlot] = issue(t, template, m.ca, public, m.key).Raw
	}
	if signer != nil {
		var opts crypto.SignerOpts = bindingAlgorithm(a).Hash()
		if a.JOSE() == "PS256" {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		}
		signature, err := signer.Sign(rand.Reader, BindingDigest(a, challenge), opts)
		if err != nil {
			t.Fatal(err)
		}
		files[FileBinding] = signature
	}
	return files
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newChallenge() []byte {
	sum := sha256.Sum256([]byte("challenge"))
	return sum[:]
}

func TestVerifyEvidence(t *testing.T) {
	attestationKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m := newMaker(t, attestationKey, nil)
	ec := p256(t)
	point, _ := ec.PublicKey.ECDH()
	modulus, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	x25519, _ := ecdh.X25519().GenerateKey(rand.Reader)
	want := Report{
		Serial: 13370000, Version: "5.7.1", Slot: "9c", FormFactor: 3,
		PIN: holdfast.PINOnce, Touch: holdfast.TouchCached, Anchored: true, Fresh: true,
	}
	for _, c := range []struct {
		a      holdfast.Algorithm
		public crypto.PublicKey
		signer crypto.Signer
	}{
		{holdfast.ES256, ec.Public(), ec},
		{holdfast.ECDHP256, point, ec},
		{holdfast.RS256_2048, modulus.Public(), modulus},
		{holdfast.PS256_2048, modulus.Public(), modulus},
		{holdfast.EdDSA, edwards.Public(), edwards},
		{holdfast.ECDHX25519, x25519.PublicKey(), nil},
	} {
		files := m.attest(t, c.a, c.public, c.signer, newChallenge())
		want.Fresh = c.signer != nil
		got, err := VerifyEvidence(files, newChallenge(), c.a, c.public, m.roots)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", c.a, got, err)
		}
		got, err = VerifyEvidence(files, newChallenge(), c.a, c.public, nil)
		if err != nil || got.Anchored {
			t.Errorf("%s without roots: %+v, %v", c.a, got, err)
		}
	}
}

// TestFlippedBits flips every bit of every file in turn.
func TestFlippedBits(t *testing.T) {
	m := newMaker(t, p256(t), nil)
	key := p256(t)
	files := m.attest(t, holdfast.ES256, key.Public(), key, newChallenge())
	for name, content := range files {
		for i := range 8 * len(content) {
			edited := maps.Clone(files)
			edited[name] = bytes.Clone(content)
			edited[name][i/8] ^= 1 << (i % 8)
			_, err := VerifyEvidence(edited, newChallenge(), holdfast.ES256, key.Public(), m.roots)
			if !errors.Is(err, holdfast.ErrIntegrity) && !errors.Is(err, holdfast.ErrInvalid) {
				t.Fatalf("%s with bit %d flipped: %v", name, i, err)
			}
		}
		for _, content := range [][]byte{nil, content[:len(content)-1], append(bytes.Clone(content), 0)} {
			edited := maps.Clone(files)
			edited[name] = content
			if _, err := VerifyEvidence(edited, newChallenge(), holdfast.ES256, key.Public(), m.roots); err == nil {
				t.Errorf("%s of %d bytes is accepted", name, len(content))
			}
		}
	}
}

func TestRefused(t *testing.T) {
	m, other := newMaker(t, p256(t), nil), newMaker(t, p256(t), nil)
	key, another := p256(t), p256(t)
	files := m.attest(t, holdfast.ES256, key.Public(), key, newChallenge())
	with := func(name string, content []byte) map[string][]byte {
		edited := maps.Clone(files)
		if edited[name] = content; content == nil {
			delete(edited, name)
		}
		return edited
	}
	point, _ := key.PublicKey.ECDH()
	for name, c := range map[string]struct {
		files     map[string][]byte
		challenge []byte
		a         holdfast.Algorithm
		public    crypto.PublicKey
		roots     *x509.CertPool
		want      holdfast.Code
	}{
		"other key":          {files, newChallenge(), holdfast.ES256, another.Public(), m.roots, holdfast.ErrIntegrity},
		"other challenge":    {files, make([]byte, 32), holdfast.ES256, key.Public(), m.roots, holdfast.ErrIntegrity},
		"short challenge":    {files, make([]byte, 31), holdfast.ES256, key.Public(), m.roots, holdfast.ErrInvalid},
		"other maker":        {files, newChallenge(), holdfast.ES256, key.Public(), other.roots, holdfast.ErrIntegrity},
		"no roots at all":    {files, newChallenge(), holdfast.ES256, key.Public(), x509.NewCertPool(), holdfast.ErrIntegrity},
		"other card":         {with(FileCA, other.ca.Raw), newChallenge(), holdfast.ES256, key.Public(), nil, holdfast.ErrIntegrity},
		"no binding":         {with(FileBinding, nil), newChallenge(), holdfast.ES256, key.Public(), m.roots, holdfast.ErrInvalid},
		"no CA":              {with(FileCA, nil), newChallenge(), holdfast.ES256, key.Public(), m.roots, holdfast.ErrInvalid},
		"unknown file":       {with("readme.txt", []byte("x")), newChallenge(), holdfast.ES256, key.Public(), m.roots, holdfast.ErrInvalid},
		"algorithm mismatch": {files, newChallenge(), holdfast.ES384, key.Public(), m.roots, holdfast.ErrInvalid},
		"wrong public type":  {files, newChallenge(), holdfast.ES256, point, m.roots, holdfast.ErrInvalid},
	} {
		_, err := VerifyEvidence(c.files, c.challenge, c.a, c.public, c.roots)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want %q", name, err, c.want.Error())
		}
	}
}

// TestSlotKeyAsCA checks that a key in a slot, which signs what it is told, cannot attest others.
func TestSlotKeyAsCA(t *testing.T) {
	slotKey := p256(t)
	m := newMaker(t, slotKey, func(ca *x509.Certificate) {
		ca.BasicConstraintsValid, ca.IsCA = false, false
		ca.ExtraExtensions = extensions(2, 1)
	})
	key := p256(t)
	files := m.attest(t, holdfast.ES256, key.Public(), key, newChallenge())
	if _, err := VerifyEvidence(files, newChallenge(), holdfast.ES256, key.Public(), m.roots); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("a slot's certificate passes for that of the attestation key: %v", err)
	}
}

// TestOddCards checks the forms that cards are known to have: an attestation certificate without basicConstraints, and
// a serial number that crypto/x509 refuses.
func TestOddCards(t *testing.T) {
	m := newMaker(t, p256(t), func(ca *x509.Certificate) { ca.BasicConstraintsValid, ca.IsCA = false, false })
	key := p256(t)
	files := m.attest(t, holdfast.ES256, key.Public(), key, newChallenge())
	if _, err := VerifyEvidence(files, newChallenge(), holdfast.ES256, key.Public(), m.roots); err != nil {
		t.Errorf("without basicConstraints: %v", err)
	}
	files[FileSlot] = m.edit(t, files[FileSlot], []byte{2, 1, 3}, []byte{2, 1, 0xFD})
	if _, err := x509.ParseCertificate(files[FileSlot]); err == nil {
		t.Fatal("crypto/x509 takes negative serial numbers: this test shows nothing")
	}
	if _, err := VerifyEvidence(files, newChallenge(), holdfast.ES256, key.Public(), m.roots); err != nil {
		t.Errorf("with a negative serial number: %v", err)
	}
}

func spki(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// edit replaces a part of a slot's certificate and signs it again.
func (m *maker) edit(t testing.TB, der, old, with []byte) []byte {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var tbs asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	tbs.FullBytes, tbs.Bytes = nil, bytes.Replace(tbs.Bytes, old, with, 1)
	signed, err := asn1.Marshal(tbs)
	if err != nil {
		t.Fatal(err)
	}
	var outer struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(signed)
	signature, err := m.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	outer.TBS = asn1.RawValue{FullBytes: signed}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err = asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestPolicies(t *testing.T) {
	for policy, want := range map[[2]byte]Report{
		{1, 1}: {PIN: holdfast.PINNever, Touch: holdfast.TouchNever},
		{3, 2}: {PIN: holdfast.PINAlways, Touch: holdfast.TouchAlways},
		{4, 3}: {PIN: holdfast.PINOnce, Touch: holdfast.TouchCached, Biometric: true},
		{5, 1}: {PIN: holdfast.PINAlways, Touch: holdfast.TouchNever, Biometric: true},
	} {
		var got Report
		if err := got.takePolicy(policy[:]); err != nil || got != want {
			t.Errorf("%v: got %+v, %v", policy, got, err)
		}
	}
	for _, policy := range [][]byte{nil, {1}, {0, 1}, {6, 1}, {1, 0}, {1, 4}, {1, 1, 1}} {
		var got Report
		if err := got.takePolicy(policy); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%v: %v", policy, err)
		}
	}
}

// FuzzVerifyEvidence looks for a panic, and for evidence that was accepted and is not what the card made.
func FuzzVerifyEvidence(f *testing.F) {
	m := newMaker(f, p256(f), nil)
	key := p256(f)
	files := m.attest(f, holdfast.ES256, key.Public(), key, newChallenge())
	f.Add(files[FileSlot], files[FileCA], files[FileBinding])
	f.Add([]byte{0x30, 0}, []byte{}, []byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, slot, ca, binding []byte) {
		edited := map[string][]byte{FileSlot: slot, FileCA: ca, FileBinding: binding}
		_, err := VerifyEvidence(edited, newChallenge(), holdfast.ES256, key.Public(), m.roots)
		if err == nil && (!bytes.Equal(slot, files[FileSlot]) || !bytes.Equal(ca, files[FileCA])) {
			t.Fatalf("accepted other certificates than the card's")
		}
		if err != nil && !errors.Is(err, holdfast.ErrIntegrity) && !errors.Is(err, holdfast.ErrInvalid) {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
