package vpiv

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"testing"
)

// extension returns the bare value of an extension.
func extension(t *testing.T, certificate *x509.Certificate, id asn1.ObjectIdentifier) []byte {
	t.Helper()
	for _, e := range certificate.Extensions {
		if e.Id.Equal(id) {
			return e.Value
		}
	}
	t.Fatalf("no extension %v", id)
	return nil
}

// chain returns the roots and intermediates for a card's attestations, as a verifier gets them.
func chain(t *testing.T, h *host) (roots, intermediates *x509.CertPool, issuer *x509.Certificate) {
	t.Helper()
	root, err := h.card.AttestationRoot()
	if err != nil {
		t.Fatal(err)
	}
	object, ok := parseTemplate(tagData, h.do(insGetData, 0x3F, 0xFF, unhex(t, "5C 03 5F FF 01")))
	if !ok {
		t.Fatal("malformed certificate object")
	}
	issuer, err = x509.ParseCertificate(need(t, object, tagCertificate))
	if err != nil {
		t.Fatal(err)
	}
	roots, intermediates = x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	intermediates.AddCert(issuer)
	return roots, intermediates, issuer
}

func TestAttest(t *testing.T) {
	for _, algorithm := range []byte{algP256, algP384, algEd25519, algX25519, algRSA2048} {
		h := newHost(t, Config{Serial: 4711, Version: [3]byte{5, 7, 4}, FormFactor: 0x81})
		h.manage()
		h.generate(slotRetiredLast, algorithm, pinAlways, touchCached)
		certificate, err := x509.ParseCertificate(h.do(insAttest, slotRetiredLast, 0, nil))
		if err != nil {
			t.Fatal(err)
		}
		roots, intermediates, issuer := chain(t, h)
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
			t.Errorf("algorithm %02X: %v", algorithm, err)
		}
		want, err := x509.MarshalPKIXPublicKey(h.card.state.keys[slotRetiredLast].private.public())
		if err != nil || !bytes.Equal(certificate.RawSubjectPublicKeyInfo, want) {
			t.Errorf("algorithm %02X: another public key", algorithm)
		}
		if !bytes.Equal(certificate.RawIssuer, issuer.RawSubject) || !certificate.NotAfter.Equal(issuer.NotAfter) ||
			certificate.Subject.CommonName != "YubiKey PIV Attestation 95" {
			t.Errorf("algorithm %02X: %v", algorithm, certificate.Subject)
		}
		for id, want := range map[*asn1.ObjectIdentifier]string{
			&extVersion: "05 07 04", &extSerial: "02 02 12 67", &extPolicy: "03 03", &extFormFactor: "81",
		} {
			if got := extension(t, certificate, *id); !bytes.Equal(got, unhex(t, want)) {
				t.Errorf("extension %v: % X, want %s", id, got, want)
			}
		}
	}
}

func TestAttestRefused(t *testing.T) {
	h := newHost(t, Config{})
	h.want(swWrongData, "00 F9 9A 00") // empty
	h.want(swWrongP1P2, "00 F9 F9 00")
	h.want(swWrongP1P2, "00 F9 9B 00")
	h.want(swWrongP1P2, "00 F9 9A 01")
	h.manage()
	h.generate(slotAuthentication, algP256)
	h.do(insPutData, 0x3F, 0xFF, unhex(t, "5C 03 5F FF 01 53 00"))
	h.want(swWrongData, "00 F9 9A 00") // no attestation certificate
	h.ok("00 F6 FF F9")
	h.want(swWrongData, "00 F9 9A 00") // no attestation key
}

func TestSharedCA(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	for serial := range uint32(2) {
		h := newHost(t, Config{Serial: serial, CA: ca})
		h.manage()
		h.generate(slotAuthentication, algP256)
		certificate, err := x509.ParseCertificate(h.do(insAttest, slotAuthentication, 0, nil))
		if err != nil {
			t.Fatal(err)
		}
		_, intermediates, _ := chain(t, h)
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
			t.Errorf("card %d: %v", serial, err)
		}
		other := newHost(t, Config{})
		foreign, _, _ := chain(t, other)
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: foreign, Intermediates: intermediates}); err == nil {
			t.Errorf("card %d verifies against another maker's root", serial)
		}
	}
}
