package hsm

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	dcrecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"holdfast"
)

// samplePublic returns a software key's public half for an algorithm on a curve, and its raw point.
func samplePublic(t *testing.T, a holdfast.Algorithm) (crypto.PublicKey, []byte) {
	t.Helper()
	fromECDSA := func(c elliptic.Curve) (crypto.PublicKey, []byte) {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return &k.PublicKey, point
	}
	fromECDH := func(c ecdh.Curve) (crypto.PublicKey, []byte) {
		k, err := c.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k.PublicKey(), k.PublicKey().Bytes()
	}
	switch a {
	case holdfast.ES256:
		return fromECDSA(elliptic.P256())
	case holdfast.ES384:
		return fromECDSA(elliptic.P384())
	case holdfast.ES512:
		return fromECDSA(elliptic.P521())
	case holdfast.ES256K:
		k, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		return k.PubKey().ToECDSA(), k.PubKey().SerializeUncompressed()
	case holdfast.EdDSA:
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pub, pub
	case holdfast.ECDHP256:
		return fromECDH(ecdh.P256())
	case holdfast.ECDHP384:
		return fromECDH(ecdh.P384())
	default:
		return fromECDH(ecdh.X25519())
	}
}

func TestPointsAndSPKI(t *testing.T) {
	for _, a := range holdfast.Algorithms() {
		c := curveOf(a)
		if c == nil {
			continue
		}
		pub, point := samplePublic(t, a)
		octets, err := asn1.Marshal(point)
		if err != nil {
			t.Fatal(err)
		}
		bits, err := asn1.Marshal(asn1.BitString{Bytes: point, BitLength: 8 * len(point)})
		if err != nil {
			t.Fatal(err)
		}
		for name, encoded := range map[string][]byte{"raw": point, "OCTET STRING": octets, "BIT STRING": bits} {
			raw, err := c.rawPoint(encoded)
			if err != nil {
				t.Errorf("%s as %s: %v", a, name, err)
				continue
			}
			got, err := publicFromPoint(a, raw)
			if err != nil || !samePublicKey(got, pub) {
				t.Errorf("%s as %s: another key, %v", a, name, err)
			}
		}
		for _, bad := range [][]byte{nil, point[1:], append(octets, 0), make([]byte, len(point))} {
			if raw, err := c.rawPoint(bad); err == nil {
				if _, err := publicFromPoint(a, raw); err == nil && a != holdfast.EdDSA && a != holdfast.ECDHX25519 {
					t.Errorf("%s: %x was taken for a point", a, bad)
				}
			}
		}
		der, err := encodeSPKI(pub)
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		again, err := parseSPKI(a, der)
		if err != nil || !samePublicKey(again, pub) {
			t.Errorf("%s: SPKI does not come back: %v", a, err)
		}
		opensslReads(t, der)
	}
}

func samePublicKey(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// opensslReads checks that OpenSSL takes der for a public key.
func opensslReads(t *testing.T, der []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "public.der")
	if err := os.WriteFile(path, der, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "pkey", "-pubin", "-inform", "DER", "-in", path, "-noout").CombinedOutput()
	if err != nil {
		t.Errorf("openssl does not read the SubjectPublicKeyInfo: %v: %s", err, out)
	}
}

func TestECDSADER(t *testing.T) {
	for a, size := range map[holdfast.Algorithm]int{holdfast.ES256: 32, holdfast.ES384: 48, holdfast.ES512: 66} {
		for _, r := range []*big.Int{big.NewInt(0), big.NewInt(1), big.NewInt(127), big.NewInt(128), big.NewInt(255),
			new(big.Int).Lsh(big.NewInt(1), uint(8*size-9)), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), big.NewInt(1))} {
			raw := append(r.FillBytes(make([]byte, size)), big.NewInt(5).FillBytes(make([]byte, size))...)
			got, err := ecdsaDER(a, raw, size)
			if err != nil {
				t.Fatal(err)
			}
			want, err := asn1.Marshal(struct{ R, S *big.Int }{r, big.NewInt(5)})
			if err != nil || string(got) != string(want) {
				t.Errorf("%s of r = %s: %x, want %x (%v)", a, r, got, want, err)
			}
		}
		if _, err := ecdsaDER(a, make([]byte, 2*size-1), size); holdfast.CodeOf(err) != holdfast.ErrIntegrity {
			t.Errorf("a signature that is too short: %v", err)
		}
	}
}

func TestLowS(t *testing.T) {
	k, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("test"))
	compact := dcrecdsa.SignCompact(k, digest[:], false)[1:] // r||s, low S
	var s secp256k1.ModNScalar
	s.SetByteSlice(compact[32:])
	high := s.Negate().Bytes()
	for _, raw := range [][]byte{compact, append(append([]byte(nil), compact[:32]...), high[:]...)} {
		der, err := ecdsaDER(holdfast.ES256K, raw, 32)
		if err != nil {
			t.Fatal(err)
		}
		if err := holdfast.Verify(holdfast.ES256K, k.PubKey().ToECDSA(), digest[:], der); err != nil {
			t.Error(err)
		}
	}
}
