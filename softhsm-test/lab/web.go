package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Domain is the domain of the DIDs of the tour. The name is reserved (RFC 6761), so nobody's.
const Domain = "id.holdfast.test"

// webYears is how long the web server's certificate and its CA are valid.
const webYears = 10

// web is what the daemon's public listener needs and what verifies it.
type web struct {
	address string // host:port to listen on
	ca      []byte // PEM
}

// keepWeb returns what is in dir, and makes it the first time: a port, and a certificate for Domain by a CA whose key
// is forgotten.
func keepWeb(dir string) (*web, error) {
	address, err := os.ReadFile(filepath.Join(dir, "address"))
	if errors.Is(err, fs.ErrNotExist) {
		return makeWeb(dir)
	}
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	return &web{strings.TrimSpace(string(address)), ca}, nil
}

// makeWeb writes the file address last: where it is, the others are.
func makeWeb(dir string) (*web, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	ca, server, key, err := makeCertificates()
	if err != nil {
		return nil, err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"ca.pem", ca}, {"server.pem", server}, {"server.key", key}, {"address", []byte(address + "\n")}} {
		if err := os.WriteFile(filepath.Join(dir, file.name), file.data, 0o600); err != nil {
			return nil, err
		}
	}
	return &web{address, ca}, nil
}

// freeAddress returns an address that nobody listens on at the moment: a DID names its host, so the daemon needs the same
// port at every start.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// makeCertificates returns a CA's certificate, one it issued for Domain, and that one's key, in PEM.
func makeCertificates() (ca, server, key []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	from := time.Now().Add(-time.Hour)
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Holdfast tour"},
		NotBefore: from, NotAfter: from.AddDate(webYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, issuer, issuer, caKey.Public(), caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: Domain}, DNSNames: []string{Domain},
		NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, leaf, issuer, serverKey.Public(), caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, nil, nil, err
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return block("CERTIFICATE", caDER), block("CERTIFICATE", serverDER), block("PRIVATE KEY", keyDER), nil
}
