package did_test

import (
	"context"
	"fmt"

	"holdfast/did"
	"holdfast/did/jwk"
	"holdfast/did/key"
)

func ExampleMethods() {
	resolver := did.Methods{key.Method: key.Resolver{}, jwk.Method: jwk.Resolver{}}
	r, err := resolver.Resolve(context.Background(), "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Document.VerificationMethod[0].Type)

	_, err = resolver.Resolve(context.Background(), "did:example:1", nil)
	fmt.Println(did.ProblemOf(err).Type.URL())
	fmt.Println(err)
	// Output:
	// Multikey
	// https://www.w3.org/ns/did#METHOD_NOT_SUPPORTED
	// DIDs of method "example" cannot be resolved, only those of jwk, key
}
