package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strconv"
	"testing"

	"holdfast"
)

// testBlob returns the blob of no key in particular.
func testBlob(t testing.TB) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := encodeSPKI(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	body, err := encodeBody(blobBody{
		Algorithm: string(holdfast.ES256), ID: make([]byte, idSize), KEK: make([]byte, idSize), Mechanism: 0x210A,
		Public: spki, Wrapped: make([]byte, 80),
	})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := encodeBlob(body, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func TestDamagedBlob(t *testing.T) {
	good := testBlob(t)
	if _, err := parseBlob(good); err != nil {
		t.Fatal(err)
	}
	check := func(what string, edited []byte) {
		t.Helper()
		if _, err := parseBlob(edited); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
	for n := range good {
		check("cut to "+strconv.Itoa(n), good[:n])
		for bit := range 8 {
			edited := bytes.Clone(good)
			edited[n] ^= 1 << bit
			check("edited at byte "+strconv.Itoa(n), edited)
		}
	}
	check("a byte too many", append(bytes.Clone(good), 0))
	check("huge", make([]byte, maxBlob+1))
}

func TestBlobOfAnotherVersion(t *testing.T) {
	parsed, err := parseBlob(testBlob(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*blobBody){
		"version":   func(b *blobBody) { b.Version = 2 },
		"algorithm": func(b *blobBody) { b.Algorithm = "ES1024" },
	} {
		body := parsed.Body
		edit(&body)
		if err := body.check(); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func FuzzParseBlob(f *testing.F) {
	good := testBlob(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, der []byte) {
		b, err := parseBlob(der)
		if err != nil {
			if code := holdfast.CodeOf(err); code != holdfast.ErrIntegrity && code != holdfast.ErrInvalid {
				t.Fatalf("error without code: %v", err)
			}
			return
		}
		again, err := encodeBlob(b.Body.Raw, b.MAC)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x became %x (%v)", der, again, err)
		}
	})
}
