//go:build cgo && !nopiv

package token_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
)

// BenchmarkSign compares a P-256 signature through this package, verified, with one of piv-go alone, on the virtual
// card: what is measured is PC/SC and the two programs, a real card takes 50 ms and more.
func BenchmarkSign(b *testing.B) {
	reader, stop, err := startReader(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			b.Error(err)
		}
	}()
	card, err := vpiv.NewCard(vpiv.Config{Serial: serial})
	if err != nil {
		b.Fatal(err)
	}
	if err := reader.Insert(b.Context(), 0, card); err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	b.Run("holdfast", func(b *testing.B) { benchmarkToken(b, digest[:]) })
	b.Run("piv-go", func(b *testing.B) { benchmarkRaw(b, reader.Name(0), digest[:]) })
}

func benchmarkToken(b *testing.B, digest []byte) {
	backend, err := token.Open(b.Context(), token.Config{
		PIN: fixedPIN(piv.DefaultPIN), RotateManagementKey: token.RotateNever,
		Environment: map[string]string{"PCSCLITE_CSOCK_NAME": socketName()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := backend.Close(); err != nil {
			b.Error(err)
		}
	})
	ctx := context.WithoutCancel(b.Context())
	k, err := backend.Generate(ctx, holdfast.KeySpec{Label: fmt.Sprint("bench", b.N), Algorithm: holdfast.ES256})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := k.Sign(ctx, digest, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := backend.Destroy(ctx, k.Ref()); err != nil {
		b.Fatal(err)
	}
}

func benchmarkRaw(b *testing.B, reader string, digest []byte) {
	yk, err := piv.Open(reader)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := yk.Close(); err != nil {
			b.Error(err)
		}
	})
	public, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotSignature,
		piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyNever, TouchPolicy: piv.TouchPolicyNever})
	if err != nil {
		b.Fatal(err)
	}
	private, err := yk.PrivateKey(piv.SlotSignature, public, piv.KeyAuth{PINPolicy: piv.PINPolicyNever})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := private.(crypto.Signer).Sign(rand.Reader, digest, crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
}
