package custody_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"holdfast"
	"holdfast/custody"
	"holdfast/custody/store"
	"holdfast/internal/softkey"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "custody")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	st, err := store.Open(ctx, dir+"/state")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	service, err := custody.New(ctx, custody.Config{Store: st, Backends: []custody.BackendConfig{{
		Name: "example", Kind: "softkey", VerifyAfterSign: true,
		// A real one opens an HSM, a TPM or a PIV card here.
		Open: func(ctx context.Context) (holdfast.Backend, error) { return softkey.Open(ctx, softkey.Config{}) },
	}}})
	if err != nil {
		log.Fatal(err)
	}
	k, err := service.CreateKey(ctx, custody.CreateKeyRequest{
		Name: "issuer", Backend: "example", Algorithm: holdfast.ES256, Purpose: custody.PurposeAssertion,
	})
	if err != nil {
		log.Fatal(err)
	}
	digest := k.Algorithm.Digest([]byte("a credential"))
	signature, err := service.Sign(ctx, "issuer", digest)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(k.Name, k.Algorithm, k.Purpose, holdfast.Verify(k.Algorithm, k.Public, digest, signature) == nil)
	if err := service.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: issuer ES256 assertion true
}
