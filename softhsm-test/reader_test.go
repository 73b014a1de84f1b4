package softhsmtest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/vpiv"
)

func TestThin(t *testing.T) {
	r := softhsmtest.ReaderFor(t)
	card, err := vpiv.NewCard(vpiv.Config{Serial: 4711})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Insert(t.Context(), 0, card); err != nil {
		t.Fatal(err)
	}
	cards, err := piv.Cards()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(cards)
	yk, err := piv.Open(r.Name(0))
	if err != nil {
		t.Fatal(err)
	}
	defer yk.Close()
	pub, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotAuthentication, piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever})
	if err != nil {
		t.Fatal(err)
	}
	priv, err := yk.PrivateKey(piv.SlotAuthentication, pub, piv.KeyAuth{PIN: piv.DefaultPIN})
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256([]byte("x"))
	sig, err := priv.(crypto.Signer).Sign(rand.Reader, d[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), d[:], sig) {
		t.Fatal("bad signature")
	}
}
