//go:build cgo && !nopkcs11

package hsm

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// A PKCS#11 module that forwards to another process stands in for a network HSM.

// p11kitClient is the module that forwards.
const p11kitClient = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"

// remote is the far side.
type remote struct {
	token  *softhsmtest.Token
	socket string
	cmd    *exec.Cmd
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // a socket's path is to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &remote{token: softhsmtest.TokenFor(t, "remote"), socket: filepath.Join(dir, "s")}
	r.start(t)
	t.Cleanup(r.kill)
	return r
}

// start starts the far side and waits until it says where it listens.
func (r *remote) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(r.socket)
	r.cmd = exec.CommandContext(t.Context(), "p11-kit", "server", "-f", "-n", r.socket, "--provider", r.token.Module, "pkcs11:token="+r.token.Label)
	r.cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+r.token.Conf)
	// It forks for each connection; the group gets all signals.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("p11-kit server: %v; install p11-kit", err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "P11_KIT_SERVER_ADDRESS") {
			return
		}
	}
	t.Fatal("p11-kit server does not say where it listens")
}

func (r *remote) signal(s syscall.Signal) { _ = syscall.Kill(-r.cmd.Process.Pid, s) }

func (r *remote) kill() {
	r.signal(syscall.SIGKILL)
	_ = r.cmd.Wait()
}

func (r *remote) config() Config {
	return Config{
		Module: p11kitClient, TokenLabel: r.token.Label, PIN: pinOf(r.token.PIN),
		Environment: map[string]string{"P11_KIT_SERVER_ADDRESS": "unix:path=" + r.socket}, CallTimeout: 10 * time.Second,
	}
}

// comesBack probes until the token answers.
func comesBack(t *testing.T, b *Backend) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := b.Probe(ctx)
		if err == nil {
			return
		}
		if !errors.Is(err, holdfast.ErrUnavailable) || ctx.Err() != nil {
			t.Fatalf("the token does not come back: %v", err)
		}
		runtime.Gosched()
	}
}

func TestFarSideKilled(t *testing.T) {
	r := newRemote(t)
	b := openConfig(t, r.config())
	t.Logf("%+v", b.Capabilities())
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	for range 2 {
		signs(t, k)
		r.kill()
		signCode(t, k, holdfast.ErrUnavailable)
		if err := b.Probe(t.Context()); !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("probe of a dead far side: %v", err)
		}
		r.start(t)
		signs(t, k)
	}
}

// TestFarSideStopped has the far side hold all answers back: callers get ErrUnavailable instead of hanging, more calls
// fail at once, and all is well when the answers come.
func TestFarSideStopped(t *testing.T) {
	r := newRemote(t)
	cfg := r.config()
	cfg.CallTimeout = 2 * time.Second // waited for twice
	b := openConfig(t, cfg)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	r.signal(syscall.SIGSTOP)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { signCode(t, k, holdfast.ErrUnavailable) })
	}
	wg.Wait()
	signCode(t, k, holdfast.ErrUnavailable)
	if n := b.mod.stuck.Load(); n < 1 {
		t.Errorf("%d calls are stuck, want at least 1", n)
	}
	r.signal(syscall.SIGCONT)
	comesBack(t, b) // once the answers, which are on their way, are there
	signs(t, k)
	r.signal(syscall.SIGSTOP)
	signCode(t, k, holdfast.ErrUnavailable)
	r.kill() // while stopped
	r.start(t)
	comesBack(t, b)
	signs(t, k)
}
