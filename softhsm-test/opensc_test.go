package softhsmtest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast/softhsm-test/vpiv"
)

// This file has OpenSC, which knows nothing of us or of piv-go, use the card.

// toolCommand returns a program that will use the reader.
func toolCommand(t *testing.T, r *Reader, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+r.Socket)
	return cmd
}

// tool runs a program on the reader and returns what it printed.
func tool(t *testing.T, r *Reader, name string, args ...string) string {
	t.Helper()
	out, err := toolCommand(t, r, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// openscModule returns the path of OpenSC's PKCS#11 module.
func openscModule(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/opensc-pkcs11.so", "/usr/lib64/opensc-pkcs11.so", "/usr/lib/opensc-pkcs11.so"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("opensc-pkcs11.so is in none of the usual places: install the package opensc-pkcs11")
	return ""
}

// prepare puts P-256 keys with certificates into 9A and 9C.
func prepare(t *testing.T, r *Reader) map[piv.Slot]*ecdsa.PublicKey {
	t.Helper()
	yk, err := piv.Open(r.Name(0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = yk.Close() }()
	keys := make(map[piv.Slot]*ecdsa.PublicKey)
	for slot, policy := range map[piv.Slot]piv.PINPolicy{
		piv.SlotAuthentication: piv.PINPolicyOnce, piv.SlotSignature: piv.PINPolicyAlways,
	} {
		public, err := yk.GenerateKey(factoryKey, slot,
			piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: policy, TouchPolicy: piv.TouchPolicyNever})
		if err != nil {
			t.Fatal(err)
		}
		key, err := yk.PrivateKey(slot, public, piv.KeyAuth{PIN: piv.DefaultPIN})
		if err != nil {
			t.Fatal(err)
		}
		if err := yk.SetCertificate(factoryKey, slot, selfSigned(t, key, public)); err != nil {
			t.Fatal(err)
		}
		keys[slot] = public.(*ecdsa.PublicKey)
	}
	return keys
}

func TestOpenSC(t *testing.T) {
	r := ReaderFor(t)
	card := newCard(t, vpiv.Config{Serial: 9})
	insert(t, r, card)
	keys := prepare(t, r)

	if out := tool(t, r, "opensc-tool", "--name"); !strings.Contains(out, "Personal Identity Verification Card") {
		t.Errorf("card name: %s", out)
	}
	if out := tool(t, r, "piv-tool", "--serial"); !strings.Contains(out, " ") {
		t.Errorf("serial number from the CHUID: %s", out)
	}
	module := openscModule(t)
	out := tool(t, r, "pkcs11-tool", "--module", module, "--list-objects", "--login", "--pin", piv.DefaultPIN)
	for _, want := range []string{"PIV AUTH key", "SIGN key", "Certificate Object", "Public Key Object; EC"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q among the objects:\n%s", want, out)
		}
	}
	for id, slot := range map[string]piv.Slot{"01": piv.SlotAuthentication, "02": piv.SlotSignature} {
		checkToolSignature(t, r, module, id, keys[slot])
	}
	if card.PINTries() != 3 {
		t.Errorf("%d tries left", card.PINTries())
	}
}

// checkToolSignature has pkcs11-tool sign and verifies with the standard library.
func checkToolSignature(t *testing.T, r *Reader, module, id string, public *ecdsa.PublicKey) {
	t.Helper()
	dir := t.TempDir()
	digest := sha256.Sum256([]byte("message"))
	input, output := filepath.Join(dir, "digest"), filepath.Join(dir, "signature")
	if err := os.WriteFile(input, digest[:], 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, r, "pkcs11-tool", "--module", module, "--login", "--pin", piv.DefaultPIN, "--sign", "--mechanism", "ECDSA",
		"--id", id, "--input-file", input, "--output-file", output)
	signature, err := os.ReadFile(output)
	if err != nil || len(signature) != 64 {
		t.Fatalf("key %s: signature of %d bytes, %v", id, len(signature), err)
	}
	rr, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(public, digest[:], rr, s) {
		t.Errorf("key %s: the signature does not verify", id)
	}
}

// TestPIVTool has OpenSC's own tool authenticate with the management key and write a certificate. (Of its other commands,
// version 0.23 makes keys but fails to print them, and stumbles over its own lengths in external authentication.)
func TestPIVTool(t *testing.T) {
	r := ReaderFor(t)
	card := newCard(t, vpiv.Config{ManagementAlgorithm: vpiv.AlgorithmTripleDES})
	insert(t, r, card)
	prepare(t, r)
	root, err := card.AttestationRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keyFile, certificate := filepath.Join(dir, "key"), filepath.Join(dir, "certificate")
	hexKey := strings.Repeat("01:02:03:04:05:06:07:08:", 3)
	if err := os.WriteFile(keyFile, []byte(strings.TrimSuffix(hexKey, ":")), 0o600); err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	if err := os.WriteFile(certificate, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIV_EXT_AUTH_KEY", keyFile)
	// Its exit status is the number of bytes it wrote.
	cmd := toolCommand(t, r, "piv-tool", "--admin", "M:9B:03", "--cert", "9A", "--in", certificate)
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := open(t, r, 0).Certificate(piv.SlotAuthentication); err != nil || !got.Equal(root) {
		t.Errorf("the certificate was not written: %v\n%s", err, out)
	}
}
