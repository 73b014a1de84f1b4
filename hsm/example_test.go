//go:build cgo && !nopkcs11

package hsm_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"os"

	"holdfast"
	"holdfast/hsm"
	softhsmtest "holdfast/softhsm-test"
)

// A key is made in a token, signs there, and is found again by its ref.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "holdfast")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	token, err := softhsmtest.NewToken(dir, "example")
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	b, err := hsm.Open(ctx, hsm.Config{
		Module:      token.Module,
		TokenLabel:  token.Label,
		Environment: token.Environment(),
		PIN: func(context.Context) (holdfast.Secret, error) {
			return holdfast.NewSecret([]byte(token.PIN)), nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = b.Close() }()

	made, err := b.Generate(ctx, holdfast.KeySpec{Label: "signing", Algorithm: holdfast.ES256})
	if err != nil {
		log.Fatal(err)
	}
	key, err := b.Key(ctx, "pkcs11:object=signing")
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("hello"))
	signature, err := key.Sign(ctx, digest[:], nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Ref() == made.Ref(), holdfast.Verify(key.Algorithm(), key.Public(), digest[:], signature))
	// Output: true <nil>
}
