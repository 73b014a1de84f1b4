package tpm_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm"
)

// tool runs a program in a folder and returns what it printed; it fails the test when the program fails.
func tool(t *testing.T, dir string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+filepath.Join(dir, "tpm.sock"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOpenSSLVerifies has OpenSSL check signatures of every algorithm.
func TestOpenSSLVerifies(t *testing.T) {
	b := open(t, softhsmtest.TPMFor(t))
	dir := t.TempDir()
	message := []byte("a message for OpenSSL")
	write(t, dir, "message", message)
	for _, a := range all {
		if a.Use() != holdfast.UseSign {
			continue
		}
		k := generate(t, b, a, holdfast.Wrapped)
		signature, err := k.Sign(t.Context(), a.Digest(message), nil)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "signature", signature)
		write(t, dir, "public.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		hash := map[int]string{32: "-sha256", 48: "-sha384", 64: "-sha512"}[a.Hash().Size()]
		args := []string{"dgst", hash, "-verify", "public.pem", "-signature", "signature"}
		if a.JOSE() == "PS256" {
			args = append(args, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
		}
		if out := tool(t, dir, "openssl", append(args, "message")...); !strings.Contains(out, "Verified OK") {
			t.Errorf("%s: openssl says %s", a, out)
		}
	}
}

// TestOtherToolsReadOurBlobs has tpm2-tools load a wrapped key from the PEM form of its blob, sign with it, and verify a signature of ours.
func TestOtherToolsReadOurBlobs(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := open(t, device)
	dir := filepath.Dir(device.SocketPath)
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.RS256_2048} {
		k := generate(t, b, a, holdfast.Wrapped)
		text, err := tpm.PEM(k.(holdfast.WrappedKey).Blob())
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "key.pem", text)
		message := []byte("signed by tpm2-tools with a key of Holdfast")
		write(t, dir, "message", message)
		ours, err := k.Sign(t.Context(), a.Digest(message), nil)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "ours", ours)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		tool(t, dir, "tpm2_load", "-r", "key.pem", "-c", "key.ctx") // makes the SRK as the format says
		tool(t, dir, "tpm2_flushcontext", "-t")
		tool(t, dir, "tpm2_sign", "-c", "key.ctx", "-g", "sha256", "-f", "plain", "-o", "signature", "message")
		tool(t, dir, "tpm2_flushcontext", "-t")
		signature, err := os.ReadFile(filepath.Join(dir, "signature"))
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(message)
		if err := holdfast.Verify(a, k.Public(), digest[:], signature); err != nil {
			t.Errorf("%s: a signature by tpm2-tools: %v", a, err)
		}
		tool(t, dir, "tpm2_verifysignature", "-c", "key.ctx", "-g", "sha256", "-m", "message", "-f",
			map[bool]string{true: "rsassa", false: "ecdsa"}[a.RSA()], "-s", "ours")
		tool(t, dir, "tpm2_flushcontext", "-t")
		b = open(t, device)
	}
}
