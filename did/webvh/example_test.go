package webvh_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"holdfast/did/webvh"
	"holdfast/internal/pubkey"
)

// exampleKey stands for a key in a device.
func exampleKey(n byte) webvh.Key {
	seed := make([]byte, ed25519.SeedSize)
	seed[31] = n
	private := ed25519.NewKeyFromSeed(seed)
	multikey, err := pubkey.MarshalMultikey(private.Public())
	if err != nil {
		panic(err)
	}
	return webvh.Key{Multikey: multikey, Sign: func(_ context.Context, message []byte) ([]byte, error) {
		return ed25519.Sign(private, message), nil
	}}
}

func Example() {
	ctx := context.Background()
	control, token := exampleKey(1), exampleKey(2)
	created, err := webvh.Create(ctx, webvh.CreateRequest{
		Domain:        "dids.example.com",
		Path:          []string{"ada"},
		UpdateKey:     control,
		NextKeyHashes: []string{webvh.KeyHash(token.Multikey)},
		Document:      []byte(`{"@context":"https://www.w3.org/ns/did/v1","id":"{DID}"}`),
		VersionTime:   time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	log, err := webvh.Verify(ctx, created.DID, created.Entry, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	resolution, err := log.Resolve(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(created.DID)
	fmt.Println(resolution.DocumentMetadata.VersionID)
	// Output:
	// did:webvh:QmarguZ2YHstFD3VUAaN4WPfAjP7wrpDKAJp435ZEr3icP:dids.example.com:ada
	// 1-QmUi2sgX15drDVbgRjPjcWUuVv9LGSUJAmfESNWeZvReu7
}

func ExampleParse() {
	location, err := webvh.Parse("did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux:dids.example.com%3A8443:ada")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(location.LogURL())
	_, err = webvh.Parse("did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux:127.0.0.1")
	fmt.Println(err)
	// Output:
	// https://dids.example.com:8443/ada/did.jsonl
	// the host of a did:webvh is a domain name, not an IP address
}
