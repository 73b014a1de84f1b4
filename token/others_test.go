//go:build cgo && !nopiv

package token_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
)

// TestSeenByOpenSC checks with an independent PIV program that our keys are keys to others too: it lists them as never
// extractable, under our label, and signs with them what verifies under the public key we know.
func TestSeenByOpenSC(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	backend := b.open(b.config())
	k := b.generate(backend, func(s *holdfast.KeySpec) {
		s.Place, s.Label, s.Algorithm = "9a", "seen by others", holdfast.RS256_2048 // OpenSC offers no ECDSA on an unknown card
	})
	gone := b.generate(backend, func(s *holdfast.KeySpec) { s.Place = "9c" })
	if err := backend.Destroy(t.Context(), gone.Ref()); err != nil {
		t.Fatal(err)
	}
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	list := b.pkcs11Tool("--list-objects")
	for _, text := range []string{"CN=seen by others", "OU=RS256-2048", "never extractable", "CN=holdfast destroyed"} {
		if !bytes.Contains(list, []byte(text)) {
			t.Errorf("OpenSC does not list %q:\n%s", text, list)
		}
	}
	message := []byte("signed by another program")
	in, out := filepath.Join(t.TempDir(), "message"), filepath.Join(t.TempDir(), "signature")
	if err := os.WriteFile(in, message, 0o600); err != nil {
		t.Fatal(err)
	}
	b.pkcs11Tool("--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", "01", "--input-file", in, "--output-file", out)
	signature, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := holdfast.Verify(k.Algorithm(), k.Public(), k.Algorithm().Digest(message), signature); err != nil {
		t.Error(err)
	}
}

// pkcs11Tool runs pkcs11-tool of OpenSC on the card.
func (b *bench) pkcs11Tool(args ...string) []byte {
	b.t.Helper()
	modules, err := filepath.Glob("/usr/lib/*/opensc-pkcs11.so")
	if err != nil || len(modules) == 0 {
		b.t.Fatal("opensc-pkcs11.so is not there: install the package opensc-pkcs11")
	}
	args = append([]string{"--module", modules[0], "--login", "--pin", pin}, args...)
	cmd := exec.CommandContext(b.t.Context(), "pkcs11-tool", args...)
	cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+b.reader.Socket)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	return out
}
