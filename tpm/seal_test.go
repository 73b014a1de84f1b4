package tpm_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm"
)

// extend changes a PCR while the backend is closed.
func extend(t *testing.T, conn transport.TPM, pcr uint32) {
	t.Helper()
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
}

// between gives f the TPM while the backend is not using it: the backend connects anew afterwards.
func between(t *testing.T, device *softhsmtest.TPM, b *tpm.Backend, f func(conn transport.TPM)) *tpm.Backend {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	t.Run("", func(t *testing.T) { f(rawConn(t, device)) }) // whose end closes the connection
	return open(t, device)
}

func TestSealToPCRs(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := open(t, device)
	secret := []byte("sealed to PCRs 7, 12 and 16")
	blob, err := b.Seal(t.Context(), holdfast.NewSecret(bytes.Clone(secret)), &holdfast.SealOptions{PCRs: []int{16, 7, 12}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Seal(t.Context(), holdfast.NewSecret(bytes.Clone(secret)), &holdfast.SealOptions{PCRs: []int{7, 23}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(blob []byte, want error) error {
		t.Helper()
		got, err := b.Unseal(t.Context(), blob, nil)
		if want == nil && (err != nil || !bytes.Equal(got.Bytes(), secret)) || want != nil && !errors.Is(err, want) {
			t.Errorf("unseal: %v, want %v", err, want)
		}
		return err
	}
	check(blob, nil)
	b = between(t, device, b, func(conn transport.TPM) { extend(t, conn, 12) })
	if err := check(blob, holdfast.ErrDenied); err != nil && !strings.Contains(err.Error(), "PCRs [12]") {
		t.Errorf("the error does not name PCR 12: %v", err)
	}
	check(other, nil)
	b = between(t, device, b, func(conn transport.TPM) { extend(t, conn, 7); extend(t, conn, 16) })
	if err := check(blob, holdfast.ErrDenied); err != nil && !strings.Contains(err.Error(), "PCRs [7 12 16]") {
		t.Errorf("the error does not name PCRs 7, 12 and 16: %v", err)
	}
	check(other, holdfast.ErrDenied)
	if err := device.Restart(t.Context()); err != nil { // which sets PCRs to zero
		t.Fatal(err)
	}
	check(blob, nil)
	check(other, nil)
}

func TestSealWithAuthValue(t *testing.T) {
	b := open(t, softhsmtest.TPMFor(t))
	right, wrong := holdfast.NewSecret([]byte("right\x00")), holdfast.NewSecret([]byte("right"))
	blob, err := b.Seal(t.Context(), holdfast.NewSecret([]byte("secret")), &holdfast.SealOptions{PCRs: []int{7}, AuthValue: right})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if got, err := b.Unseal(t.Context(), blob, &holdfast.UnsealOptions{AuthValue: right}); err != nil || string(got.Bytes()) != "secret" {
			t.Fatalf("unseal: %v", err)
		}
	}
	if _, err := b.Unseal(t.Context(), blob, nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("without the AuthValue: %v", err)
	}
	examine := func(want string) {
		t.Helper()
		concerns, err := b.Examine(t.Context())
		if err != nil || (want == "") != (len(concerns) == 0) || !strings.Contains(strings.Join(concerns, "\n"), want) {
			t.Errorf("examine: %q, %v, want %q", concerns, err, want)
		}
	}
	examine("")
	for left := 2; left >= 0; left-- { // swtpm allows three
		_, err := b.Unseal(t.Context(), blob, &holdfast.UnsealOptions{AuthValue: wrong})
		if e, ok := errors.AsType[*holdfast.Error](err); !ok || e.Code != holdfast.ErrAuth || e.Retries != left {
			t.Errorf("a wrong AuthValue: %v, want ErrAuth with %d tries left", err, left)
		}
		if left == 2 {
			examine("counts 1 failed")
		}
	}
	examine("is locked")
	_, err = b.Unseal(t.Context(), blob, &holdfast.UnsealOptions{AuthValue: right})
	if !errors.Is(err, holdfast.ErrLocked) || !strings.Contains(err.Error(), "1000 seconds") {
		t.Errorf("after too many wrong ones: %v", err)
	}
	// What has no AuthValue is not locked out.
	k := generate(t, b, holdfast.ES256, holdfast.Wrapped)
	if _, err := k.Sign(t.Context(), make([]byte, 32), nil); err != nil {
		t.Errorf("sign while the TPM is locked out: %v", err)
	}
	free, err := b.Seal(t.Context(), holdfast.NewSecret([]byte("free")), &holdfast.SealOptions{PCRs: []int{7}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Unseal(t.Context(), free, nil); err != nil {
		t.Errorf("unseal without AuthValue while the TPM is locked out: %v", err)
	}
	if _, err := b.Unseal(t.Context(), free, &holdfast.UnsealOptions{AuthValue: right}); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("an AuthValue that is not wanted: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	b := open(t, softhsmtest.TPMFor(t))
	secret := func(n int) holdfast.Secret { return holdfast.NewSecret(make([]byte, n)) }
	for name, c := range map[string]struct {
		secret  holdfast.Secret
		options *holdfast.SealOptions
	}{
		"nothing":     {secret(0), nil},
		"too much":    {secret(tpm.MaxSecret + 1), nil},
		"PCR 24":      {secret(1), &holdfast.SealOptions{PCRs: []int{24}}},
		"PCR -1":      {secret(1), &holdfast.SealOptions{PCRs: []int{-1}}},
		"PCR 7 twice": {secret(1), &holdfast.SealOptions{PCRs: []int{7, 8, 7}}},
	} {
		if _, err := b.Seal(t.Context(), c.secret, c.options); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if blob, err := b.Seal(t.Context(), secret(tpm.MaxSecret), nil); err != nil {
		t.Errorf("the longest secret: %v", err)
	} else if got, err := b.Unseal(t.Context(), blob, nil); err != nil || got.Len() != tpm.MaxSecret {
		t.Errorf("the longest secret: %d bytes, %v", got.Len(), err)
	}
}

// TestSealedBlobEdited changes every byte, and cuts off every length.
func TestSealedBlobEdited(t *testing.T) {
	b := open(t, softhsmtest.TPMFor(t))
	blob, err := b.Seal(t.Context(), holdfast.NewSecret([]byte("secret")), &holdfast.SealOptions{PCRs: []int{7}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range blob {
		edited := bytes.Clone(blob)
		edited[i] ^= 1 << (i % 8)
		if _, err := b.Unseal(t.Context(), edited, nil); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("byte %d edited: %v", i, err)
		}
		if _, err := b.Unseal(t.Context(), blob[:i], nil); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("cut off at %d: %v", i, err)
		}
	}
	if _, err := b.Unseal(t.Context(), append(blob, 0), nil); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("a byte too many: %v", err)
	}
}

// otherTPM starts a TPM of another identity than those of softhsmtest.TPMFor.
func otherTPM(t *testing.T) *softhsmtest.TPM {
	t.Helper()
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	device, err := softhsmtest.StartTPM(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Kill() })
	return device
}

// TestAnotherTPM takes blobs and refs to a TPM that did not make them.
func TestAnotherTPM(t *testing.T) {
	a, b := open(t, softhsmtest.TPMFor(t)), open(t, otherTPM(t))
	serial := a.Capabilities().Device.Serial
	if serial == b.Capabilities().Device.Serial || len(serial) != 32 {
		t.Errorf("two TPMs have the serials %q and %q", serial, b.Capabilities().Device.Serial)
	}
	sealed, err := a.Seal(t.Context(), holdfast.NewSecret([]byte("secret")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Unseal(t.Context(), sealed, nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("unseal on another TPM: %v", err)
	}
	k, err := b.Load(t.Context(), generate(t, a, holdfast.ES256, holdfast.Wrapped).(holdfast.WrappedKey).Blob())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(t.Context(), make([]byte, 32), nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("sign with the key of another TPM: %v", err)
	}
	if _, err := b.Key(t.Context(), generate(t, a, holdfast.ES256, holdfast.Resident).Ref()); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("find the key of another TPM: %v", err)
	}
	generate(t, b, holdfast.ES256, holdfast.Wrapped) // all is well after that
}

// TestExpectedEK pins the backend to a TPM and shows it another.
func TestExpectedEK(t *testing.T) {
	device, other := softhsmtest.TPMFor(t), otherTPM(t)
	b := open(t, device)
	serial := b.Capabilities().Device.Serial
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	pinned, err := tpm.Open(t.Context(), tpm.Config{Device: "unix:" + device.SocketPath, ExpectedEK: strings.ToUpper(serial)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pinned.Close() })
	k := generate(t, pinned, holdfast.ES256, holdfast.Wrapped)
	if _, err := k.Sign(t.Context(), make([]byte, 32), nil); err != nil {
		t.Error(err)
	}
	if _, err := tpm.Open(t.Context(), tpm.Config{Device: "unix:" + other.SocketPath, ExpectedEK: serial}); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("another TPM than the expected one: %v", err)
	}
	// Another TPM takes the place of the one that was opened.
	if err := device.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(device.SocketPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Symlink(other.SocketPath, device.SocketPath); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(t.Context(), make([]byte, 32), nil); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("sign when another TPM is there: %v", err)
	}
}
