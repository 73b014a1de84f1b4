package pubkey

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"holdfast"
)

func TestParseSPKIFor(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := MarshalSPKI(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	signing, err := ParseSPKIFor(holdfast.ES256, der)
	if _, ok := signing.(*ecdsa.PublicKey); !ok || err != nil {
		t.Errorf("for ES256: %T, %v", signing, err)
	}
	agreement, err := ParseSPKIFor(holdfast.ECDHP256, der)
	if _, ok := agreement.(*ecdh.PublicKey); !ok || err != nil {
		t.Errorf("for ECDH-P256: %T, %v", agreement, err)
	}
	for _, a := range []holdfast.Algorithm{holdfast.ES384, holdfast.ECDHP384, holdfast.ECDHX25519, holdfast.EdDSA, holdfast.A256GCM} {
		if _, err := ParseSPKIFor(a, der); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("for %s: %v", a, err)
		}
	}
}
