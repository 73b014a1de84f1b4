package tpm_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm"
)

func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	device, err := softhsmtest.StartTPM(ctx, dir) // in place of a chip: Device would be "/dev/tpmrm0"
	if err != nil {
		log.Fatal(err)
	}
	defer device.Kill()

	backend, err := tpm.Open(ctx, tpm.Config{Device: "unix:" + device.SocketPath})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()
	key, err := backend.Generate(ctx, holdfast.KeySpec{Label: "example", Algorithm: holdfast.ES256})
	if err != nil {
		log.Fatal(err)
	}
	digest := holdfast.ES256.Digest([]byte("hello"))
	signature, err := key.Sign(ctx, digest, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(holdfast.Verify(holdfast.ES256, key.Public(), digest, signature))

	// The key is kept as a blob that only this TPM can use.
	again, err := backend.Load(ctx, key.(holdfast.WrappedKey).Blob())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.Ref() == key.Ref())
	// Output:
	// <nil>
	// true
}

func ExampleBackend_Seal() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	device, err := softhsmtest.StartTPM(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	defer device.Kill()
	backend, err := tpm.Open(ctx, tpm.Config{Device: "unix:" + device.SocketPath})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()

	secret := holdfast.NewSecret([]byte("a wallet's key"))
	blob, err := backend.Seal(ctx, secret, &holdfast.SealOptions{PCRs: []int{7}}) // secure boot state
	if err != nil {
		log.Fatal(err)
	}
	got, err := backend.Unseal(ctx, blob, nil)
	fmt.Printf("%s, %v\n", got.Bytes(), err)
	// Output:
	// a wallet's key, <nil>
}
