package token

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"

	"holdfast"
)

// TestMarks checks that what is written into a certificate is what is read from it, for each kind of key.
func TestMarks(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	modulus, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	x25519, _ := ecdh.X25519().GenerateKey(rand.Reader)
	id := keyID{0, 0, 3}
	for _, c := range []struct {
		algorithm holdfast.Algorithm
		make      func(mark) (*x509.Certificate, error)
	}{
		{holdfast.ES256, func(m mark) (*x509.Certificate, error) { return m.certificate(p256.Public(), p256) }},
		{holdfast.PS256_2048, func(m mark) (*x509.Certificate, error) { return m.certificate(modulus.Public(), modulus) }},
		{holdfast.RS256_2048, func(m mark) (*x509.Certificate, error) { return m.certificate(modulus.Public(), modulus) }},
		{holdfast.EdDSA, func(m mark) (*x509.Certificate, error) { return m.certificate(edwards.Public(), edwards) }},
		{holdfast.ECDHP256, func(m mark) (*x509.Certificate, error) { return m.certificate(p256.Public(), nil) }},
		{holdfast.ECDHX25519, func(m mark) (*x509.Certificate, error) { return m.certificate(x25519.PublicKey(), nil) }},
	} {
		want := mark{role: roleKey, id: id, label: "DID control, Zürich", algorithm: c.algorithm}
		cert, err := c.make(want)
		if err != nil {
			t.Fatalf("%s: %v", c.algorithm, err)
		}
		if got := parseMark(cert.Raw); got != want {
			t.Errorf("%s: got %+v, want %+v", c.algorithm, got, want)
		}
	}
	for _, want := range []mark{
		{role: roleHalfMade, id: id}, {role: roleDestroyed}, {role: roleDestroyed, id: keyID(bytes.Repeat([]byte{255}, 16))},
	} {
		cert, err := want.certificate(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := parseMark(cert.Raw); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// TestForeignMarks checks that certificates that only resemble ours are somebody else's.
func TestForeignMarks(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	subject := func(cn, unit, organization string) pkix.Name {
		return pkix.Name{CommonName: cn, OrganizationalUnit: []string{unit}, Organization: []string{organization}}
	}
	long := new(big.Int).Lsh(big.NewInt(1), 128)
	for name, template := range map[string]*x509.Certificate{
		"other organization": {SerialNumber: big.NewInt(1), Subject: subject("x", "ES256", "Acme")},
		"other key type":     {SerialNumber: big.NewInt(1), Subject: subject("x", "RS256-2048", "Holdfast")},
		"unknown algorithm":  {SerialNumber: big.NewInt(1), Subject: subject("x", "HS256", "Holdfast")},
		"secret key":         {SerialNumber: big.NewInt(1), Subject: subject("x", "A256GCM", "Holdfast")},
		"no label":           {SerialNumber: big.NewInt(1), Subject: subject("", "ES256", "Holdfast")},
		"long serial number": {SerialNumber: long, Subject: subject("x", "ES256", "Holdfast")},
		"no unit":            {SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Holdfast"}}},
	} {
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if got := parseMark(der); got.role != roleForeign {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func FuzzParseMark(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []mark{{role: roleDestroyed}, {role: roleHalfMade, id: keyID{9}}} {
		cert, err := m.certificate(nil, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(cert.Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		m := parseMark(der)
		switch m.role {
		case roleNone:
			t.Fatal("a certificate that is there was read as none")
		case roleKey:
			if !m.algorithm.Valid() || holdfast.CheckLabel(m.label) != nil {
				t.Fatalf("accepted %+v", m)
			}
			if m.algorithm != holdfast.ES256 {
				return
			}
		case roleForeign:
			return
		}
		if m.role == roleKey {
			cert, err := m.certificate(key.Public(), key)
			if err != nil || readMark(cert) != m {
				t.Fatalf("%+v does not survive: %v", m, err)
			}
		}
	})
}
