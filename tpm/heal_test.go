package tpm

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

func openDevice(t *testing.T, cfg Config, device *softhsmtest.TPM) *Backend {
	t.Helper()
	cfg.Device = "unix:" + device.SocketPath
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func mustGenerate(t *testing.T, b *Backend, a holdfast.Algorithm, r holdfast.Residence) holdfast.Key {
	t.Helper()
	k, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "test", Algorithm: a, Residence: r})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signed signs and verifies. The error is that of signing; a signature that does not verify fails the test.
func signed(t *testing.T, k holdfast.Key, message string) error {
	t.Helper()
	digest := k.Algorithm().Digest([]byte(message))
	signature, err := k.Sign(t.Context(), digest, nil)
	if err != nil {
		return err
	}
	if err := holdfast.Verify(k.Algorithm(), k.Public(), digest, signature); err != nil {
		t.Errorf("a wrong signature: %v", err)
	}
	return nil
}

func mustSign(t *testing.T, k holdfast.Key, when string) {
	t.Helper()
	if err := signed(t, k, when); err != nil {
		t.Errorf("sign %s: %v", when, err)
	}
}

// onConn runs f with the backend's connection, as an operation would.
func onConn(t *testing.T, b *Backend, f func(*conn) error) {
	t.Helper()
	if err := b.run(t.Context(), "test", "", once, f); err != nil {
		t.Fatal(err)
	}
}

func TestResetWhileSigning(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := openDevice(t, Config{}, device)
	keys := []holdfast.Key{
		mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped), mustGenerate(t, b, holdfast.ES384, holdfast.Wrapped),
		mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped), mustGenerate(t, b, holdfast.ES256, holdfast.Resident),
	}
	ctx, stop := context.WithCancel(t.Context())
	var signatures atomic.Int64
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() {
			for ctx.Err() == nil {
				switch err := signed(t, k, "while resetting"); {
				case err == nil:
					signatures.Add(1)
				case !errors.Is(err, holdfast.ErrUnavailable):
					t.Errorf("sign: %v", err)
					return
				}
			}
		})
	}
	for range 20 {
		before := signatures.Load()
		if err := device.Reset(t.Context()); err != nil {
			t.Error(err)
		}
		for signatures.Load() < before+4 && !t.Failed() {
			if err := b.Probe(t.Context()); err != nil && !errors.Is(err, holdfast.ErrUnavailable) {
				t.Errorf("probe: %v", err)
			}
		}
	}
	stop()
	wg.Wait()
	for _, k := range keys {
		mustSign(t, k, "after 20 resets")
	}
}

func TestKillAndRestart(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := openDevice(t, Config{}, device)
	wrapped, resident := mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped), mustGenerate(t, b, holdfast.ES256, holdfast.Resident)
	if err := device.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []holdfast.Key{wrapped, resident} {
		if err := signed(t, k, "on a dead TPM"); !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("sign on a dead TPM: %v", err)
		}
	}
	if err := b.Probe(t.Context()); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("probe a dead TPM: %v", err)
	}
	if err := device.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSign(t, wrapped, "after a restart")
	mustSign(t, resident, "after a restart")
}

// TestLostObjects takes from under the backend what it has loaded.
func TestLostObjects(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := openDevice(t, Config{}, device)
	k := mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped)
	for name, lose := range map[string]func(c *conn) error{
		"the key":     func(c *conn) error { return c.flush(c.slots.loaded[len(c.slots.loaded)-1].handle) },
		"the SRK":     func(c *conn) error { return errors.Join(c.forget(k.(wrappedKey).name.Buffer), c.flush(c.srk.Handle)) },
		"the session": func(c *conn) error { return c.flush(c.session.handle) },
		"the session's secret": func(c *conn) error {
			c.session.key[0] ^= 1
			return nil
		},
		"the connection": func(c *conn) error { return c.Close() },
	} {
		onConn(t, b, lose)
		mustSign(t, k, "after losing "+name)
	}
	// A handle that has come to mean another object must not be used for the key.
	other := mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped)
	mustSign(t, k, "before the swap")
	mustSign(t, other, "before the swap")
	onConn(t, b, func(c *conn) error {
		l := c.slots.loaded
		l[0].handle, l[1].handle = l[1].handle, l[0].handle
		return nil
	})
	mustSign(t, k, "after swapping handles")
	mustSign(t, other, "after swapping handles")
}

// TestLeftovers opens the TPM again and again without ever closing it in good order.
func TestLeftovers(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	var blob []byte
	for i := range 10 {
		b, err := Open(t.Context(), Config{Device: "unix:" + device.SocketPath})
		if err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
		blob = mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped).(holdfast.WrappedKey).Blob()
		mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped)
		onConn(t, b, func(c *conn) error { return c.Close() }) // as when the process is killed
	}
	b := openDevice(t, Config{}, device)
	k, err := b.Load(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	mustSign(t, k, "after ten crashes")
}

// TestNoLockout kills the client and the TPM again and again, in the middle of using everything there is: the TPM must not
// take that for an attack (TPM_PT_LOCKOUT_COUNTER).
func TestNoLockout(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	password := holdfast.NewSecret([]byte("correct horse"))
	var sealed []byte
	for i := range 10 {
		b, err := Open(t.Context(), Config{Device: "unix:" + device.SocketPath})
		if err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
		for _, r := range []holdfast.Residence{holdfast.Wrapped, holdfast.Resident} {
			mustSign(t, mustGenerate(t, b, holdfast.ES256, r), "before a crash")
		}
		if sealed == nil {
			sealed, err = b.Seal(t.Context(), holdfast.NewSecret([]byte("secret")), &holdfast.SealOptions{AuthValue: password})
			if err != nil {
				t.Fatal(err)
			}
		}
		secret, err := b.Unseal(t.Context(), sealed, &holdfast.UnsealOptions{AuthValue: password})
		if err != nil || !bytes.Equal(secret.Bytes(), []byte("secret")) {
			t.Fatalf("unseal %d: %v", i, err)
		}
		var counter uint32
		onConn(t, b, func(c *conn) error {
			var err error
			counter, err = c.property(tpm2.TPMPTLockoutCounter)
			return err
		})
		if counter != 0 {
			t.Fatalf("after %d crashes the TPM counts %d failed tries", i, counter)
		}
		if err := device.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContextInLine(t *testing.T) {
	b := openDevice(t, Config{}, softhsmtest.TPMFor(t))
	k := mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped)
	held, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		onConn(t, b, func(*conn) error {
			close(held)
			<-release
			return nil
		})
	})
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := k.Sign(ctx, make([]byte, 32), nil)
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting in line under an ended context: %v", err)
	}
	closing := make(chan error)
	go func() { closing <- b.Close() }()
	<-b.closed
	if _, err := k.Sign(t.Context(), make([]byte, 32), nil); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("signing while closing: %v", err)
	}
	close(release)
	if err := <-closing; err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
}

// TestSlots uses more keys than fit, in every residence.
func TestSlots(t *testing.T) {
	b := openDevice(t, Config{}, softhsmtest.TPMFor(t))
	var keys []holdfast.Key
	for range 5 {
		keys = append(keys, mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped), mustGenerate(t, b, holdfast.ES256, holdfast.Resident))
	}
	for range 3 {
		for i := range keys {
			mustSign(t, keys[(3*i)%len(keys)], "in turn")
			if _, err := keys[i].(holdfast.Attester).Attest(t.Context(), make([]byte, 32)); err != nil {
				t.Error(err)
			}
		}
	}
	onConn(t, b, func(c *conn) error {
		if len(c.slots.loaded) > c.slots.capacity || c.slots.capacity != 2 {
			t.Errorf("%d objects are loaded, there is room for %d", len(c.slots.loaded), c.slots.capacity)
		}
		return nil
	})
}
