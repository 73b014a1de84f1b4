package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"go.uber.org/zap"

	"holdfast"
	"holdfast/api/client"
	"holdfast/internal/softkey"
)

// Code written for a device works with a daemon in between. A real daemon listens on /run/holdfast/holdfastd.sock.
func ExampleClient_Backend() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "holdfast")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, stop, err := serve(ctx, dir, softkey.Config{}, zap.NewNop())
	if err != nil {
		log.Fatal(err)
	}

	daemon, err := client.New(path)
	if err != nil {
		log.Fatal(err)
	}
	backend, err := daemon.Backend(ctx, "soft", nil)
	if err != nil {
		log.Fatal(err)
	}
	key, err := backend.Generate(ctx, holdfast.KeySpec{Label: "issuer", Algorithm: holdfast.ES256})
	if err != nil {
		log.Fatal(err)
	}
	digest := holdfast.ES256.Digest([]byte("a credential"))
	signature, err := key.Sign(ctx, digest, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(holdfast.Verify(holdfast.ES256, key.Public(), digest, signature))
	if err := daemon.Close(); err != nil {
		log.Fatal(err)
	}
	if err := stop(); err != nil {
		log.Fatal(err)
	}
	// Output: <nil>
}
