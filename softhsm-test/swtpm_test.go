package softhsmtest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

func TestTPMLife(t *testing.T) {
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	tpm, err := StartTPM(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tpm.Kill() })
	if !bytes.Contains(tpm.CARoot, []byte("BEGIN CERTIFICATE")) {
		t.Error("no CA certificates")
	}
	count := resetCount(t, tpm)

	if err := tpm.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, tpm)
	if _, err := (tpm2.ReadClock{}).Execute(conn); !errors.Is(err, tpm2.TPMRCInitialize) {
		t.Errorf("after a reset the TPM answers %v, want TPM_RC_INITIALIZE", err)
	}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(conn); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	if got := resetCount(t, tpm); got != count+1 {
		t.Errorf("the reset count is %d after a reset, was %d", got, count)
	}
	if err := tpm.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := resetCount(t, tpm); got != count+2 {
		t.Errorf("the reset count is %d after a restart, want %d", got, count+2)
	}
	for range 2 {
		if err := tpm.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "unix", tpm.SocketPath); err == nil {
		t.Error("a stopped TPM takes connections")
	}
}

func TestTPMStartFails(t *testing.T) {
	tpm := TPMFor(t)
	second := &TPM{SocketPath: tpm.SocketPath + "2", ControlPath: tpm.ControlPath + "2", stateDir: tpm.stateDir}
	if err := second.start(t.Context()); err == nil {
		_ = second.Kill()
		t.Error("two TPMs started on one state folder")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartTPM(ctx, t.TempDir()); err == nil {
		t.Error("a TPM was manufactured under an ended context")
	}
}

func connect(t *testing.T, tpm *TPM) transport.TPMCloser {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", tpm.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	return transport.FromReadWriteCloser(conn)
}

func resetCount(t *testing.T, tpm *TPM) uint32 {
	t.Helper()
	conn := connect(t, tpm)
	defer conn.Close()
	clock, err := tpm2.ReadClock{}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	return clock.CurrentTime.ClockInfo.ResetCount
}
