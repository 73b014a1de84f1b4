//go:build cgo && !nopiv

package token_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
	"holdfast/token/attestation"
)

// A key is made on the card, signs, and proves to somebody else that it was generated there.
func Example() {
	ctx := context.Background()
	roots, stop := insertVirtualCard(ctx)
	defer stop()

	backend, err := token.Open(ctx, token.Config{
		PIN:                 func(context.Context) (holdfast.Secret, error) { return holdfast.NewSecret([]byte("123456")), nil },
		RotateManagementKey: token.RotateNever, // a daemon has a place to keep a new one
		Environment:         map[string]string{"PCSCLITE_CSOCK_NAME": socketName()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := backend.Close(); err != nil {
			log.Fatal(err)
		}
	}()

	key, err := backend.Generate(ctx, holdfast.KeySpec{Label: "did-control", Algorithm: holdfast.ES256, Place: "9c"})
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("hello"))
	signature, err := key.Sign(ctx, digest[:], nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("verifies:", holdfast.Verify(key.Algorithm(), key.Public(), digest[:], signature) == nil)

	challenge := sha256.Sum256([]byte("what the verifier chose"))
	evidence, err := key.(holdfast.Attester).Attest(ctx, challenge[:])
	if err != nil {
		log.Fatal(err)
	}
	report, err := attestation.VerifyEvidence(evidence.Files, challenge[:], key.Algorithm(), key.Public(), roots)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("generated in slot %s of card %d, PIN %s: %v\n", report.Slot, report.Serial, report.PIN, report.Anchored)
	// Output:
	// verifies: true
	// generated in slot 9c of card 13370000, PIN once: true
}

// insertVirtualCard puts a new card into a virtual reader and returns the root certificate of its maker.
func insertVirtualCard(ctx context.Context) (*x509.CertPool, func()) {
	reader, stop, err := startReader(ctx)
	if err != nil {
		log.Fatal(err)
	}
	card, err := vpiv.NewCard(vpiv.Config{Serial: serial})
	if err != nil {
		log.Fatal(err)
	}
	if err := reader.Insert(ctx, 0, card); err != nil {
		log.Fatal(err)
	}
	root, err := card.AttestationRoot()
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return roots, func() {
		if err := stop(); err != nil {
			log.Fatal(err)
		}
	}
}
