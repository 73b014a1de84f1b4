package webvh_test

import (
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"holdfast/did/webvh"
	"holdfast/internal/pubkey"
)

// testKey returns the update key number n: its seed is n.
func testKey(tb testing.TB, n byte) webvh.Key {
	tb.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	private := ed25519.NewKeyFromSeed(seed)
	multikey, err := pubkey.MarshalMultikey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return webvh.Key{Multikey: multikey, Sign: func(_ context.Context, message []byte) ([]byte, error) {
		return ed25519.Sign(private, message), nil
	}}
}

const template = `{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1"],"id":"{DID}",
"verificationMethod":[{"id":"{DID}#key-1","type":"Multikey","controller":"{DID}",
"publicKeyMultibase":"zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"}],
"authentication":["{DID}#key-1"],"assertionMethod":["{DID}#key-1"]}`

// born is when the tests' DIDs are created.
func born() time.Time { return time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC) }

func request(tb testing.TB) webvh.CreateRequest {
	tb.Helper()
	return webvh.CreateRequest{
		Domain: "dids.example.com", UpdateKey: testKey(tb, 1), Document: []byte(template), VersionTime: born(),
	}
}
