package softhsmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TPM is a throw-away TPM 2.0: one swtpm process, a child of this one, that listens on Unix sockets and dies with it.
// Its endorsement key, certificates and seeds are those of a manufactured TPM in the folder it was started in; what is
// made in it later is its own. It serves one client at a time, as /dev/tpm0 does.
//
// The methods are not for concurrent use.
type TPM struct {
	// SocketPath takes TPM commands: "unix:" + SocketPath is its device for package tpm, and "swtpm:path=" + SocketPath
	// its TCTI for tpm2-tools.
	SocketPath string

	// ControlPath takes swtpm's control commands (swtpm_ioctl --unix).
	ControlPath string

	// CARoot holds the certificates of the CA that issued the endorsement key's certificates, in PEM: the issuer first,
	// then the root it is signed by.
	CARoot []byte

	stateDir string
	process  *swtpmProcess
}

// StartTPM starts a TPM that keeps all its files in dir, which has to exist. The first call with a folder manufactures a
// TPM there (about two seconds); further ones start copies of that, which are other TPMs with the same identity, as if it
// was reset to how it left the factory. The TPM runs until Stop or Kill.
func StartTPM(ctx context.Context, dir string) (*TPM, error) {
	factory := filepath.Join(dir, "manufactured")
	if err := manufactureTPM(ctx, factory); err != nil {
		return nil, err
	}
	stateDir, err := os.MkdirTemp(dir, "tpm")
	if err != nil {
		return nil, err
	}
	state, err := os.ReadFile(filepath.Join(factory, swtpmState))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(stateDir, swtpmState), state, 0o600); err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(factory, swtpmRoots))
	if err != nil {
		return nil, err
	}
	t := &TPM{
		SocketPath:  filepath.Join(stateDir, "tpm.sock"),
		ControlPath: filepath.Join(stateDir, "tpm.sock.ctrl"), // where tpm2-tools look for it
		CARoot:      root,
		stateDir:    stateDir,
	}
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// TPMFor starts a TPM for one test and ends it with the test. All TPMs it starts in this user's account are copies of one
// manufactured TPM, which is kept in the user's cache folder.
func TPMFor(tb testing.TB) *TPM {
	tb.Helper()
	factory, err := sharedFactory()
	if err != nil {
		tb.Fatal(err)
	}
	if err := manufactureTPM(tb.Context(), factory); err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "swtpm") // not tb.TempDir, whose long names do not fit in a socket address
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Symlink(factory, filepath.Join(dir, "manufactured")); err != nil {
		tb.Fatal(err)
	}
	t, err := StartTPM(tb.Context(), dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = t.Kill() })
	return t
}

// Stop ends the TPM in good order: TPM2_Shutdown(CLEAR), unless a client is connected still, and then the process.
func (t *TPM) Stop(ctx context.Context) error {
	if t.process == nil {
		return nil
	}
	err := t.shutdown(ctx)
	if c := control(ctx, t.ControlPath, controlShutdown); c != nil {
		err = errors.Join(err, c, t.process.kill())
	}
	t.process.wait()
	t.process = nil
	return err
}

// Kill ends the TPM as a power failure does.
func (t *TPM) Kill() error {
	if t.process == nil {
		return nil
	}
	err := t.process.kill()
	t.process.wait()
	t.process = nil
	return err
}

// Restart kills the TPM if it runs, and starts it again with what it had in non-volatile memory, at the same paths.
func (t *TPM) Restart(ctx context.Context) error {
	if err := t.Kill(); err != nil {
		return err
	}
	return t.start(ctx)
}

// Reset switches the TPM's power off and on under its connected client: sessions and transient objects are gone, and it
// answers TPM_RC_INITIALIZE until it gets TPM2_Startup, as a chip whose client takes the place of the firmware.
func (t *TPM) Reset(ctx context.Context) error {
	return control(ctx, t.ControlPath, controlInit)
}

func (t *TPM) start(ctx context.Context) error {
	if len(t.SocketPath) > 100 {
		return fmt.Errorf("the path %s is too long for a socket: use a shorter folder", t.SocketPath)
	}
	for _, path := range []string{t.SocketPath, t.ControlPath} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	p, err := startSwtpm("socket", "--tpm2", "--tpmstate", "dir="+t.stateDir,
		"--server", "type=unixio,path="+t.SocketPath, "--ctrl", "type=unixio,path="+t.ControlPath,
		"--flags", "not-need-init,startup-clear")
	if err != nil {
		return err
	}
	t.process = p
	if err := t.ready(ctx); err != nil {
		return errors.Join(err, t.Kill())
	}
	return nil
}

// startTimeout bounds the wait for a swtpm that neither listens nor exits.
const startTimeout = 20 * time.Second

// ready waits until swtpm answers on its control socket, or ends.
func (t *TPM) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := control(ctx, t.ControlPath, controlCapability)
		if err == nil {
			return nil
		}
		select {
		case <-t.process.done:
			return fmt.Errorf("swtpm ended before it listened: %s", t.process.output())
		case <-ctx.Done():
			return fmt.Errorf("swtpm does not answer: %w (%w)", err, ctx.Err())
		case <-tick.C:
		}
	}
}

// swtpmProcess is a foreground child.
type swtpmProcess struct {
	cmd  *exec.Cmd
	text *strings.Builder // swtpm's output, complete when done is closed
	done chan struct{}
}

// startSwtpm starts swtpm from a thread that lives as long as the child: the kernel sends Pdeathsig when the thread that
// started a child ends, not when the process does.
func startSwtpm(args ...string) (*swtpmProcess, error) {
	p := &swtpmProcess{cmd: exec.Command("swtpm", args...), text: new(strings.Builder), done: make(chan struct{})}
	// A process group of its own: Ctrl-C in a terminal is for us to act on, not for swtpm.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Stdout, p.cmd.Stderr = p.text, p.text
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start swtpm (package swtpm): %w", err)
	}
	return p, nil
}

func (p *swtpmProcess) wait() { <-p.done }

func (p *swtpmProcess) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p *swtpmProcess) output() string { return strings.TrimSpace(p.text.String()) }
