package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"holdfast"
	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
	"holdfast/internal/keytest"
	"holdfast/softhsm-test/lab"
	"holdfast/softhsm-test/vpiv"
)

// process is a daemon on the devices of a lab.
type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	client *client.Client
	exit   chan error // what Wait returned, once

	stopped bool // nobody has to stop it any more
}

// startDaemon starts holdfastd and waits until it answers.
func startDaemon(t *testing.T, devices *lab.Lab) *process {
	t.Helper()
	p := &process{output: new(bytes.Buffer)}
	p.cmd = exec.Command("holdfastd", "--config", filepath.Join(devices.Dir, "holdfastd.yaml"))
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(t) })
	var err error
	if p.client, err = client.New(filepath.Join(devices.Dir, "holdfastd.sock")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.GetStatus(t.Context(), &pb.GetStatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatalf("the daemon does not answer: %v", err)
	}
	return p
}

// start starts the daemon from a thread that lives as long as it: the kernel sends Pdeathsig when the thread that started
// a child ends, and threads on which virtual devices run end before the test does.
func (p *process) start() error {
	p.exit = make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.exit <- p.cmd.Wait()
		}
	}()
	return <-started
}

// stop ends the daemon as a supervisor does and returns all it printed.
func (p *process) stop(t *testing.T) string {
	t.Helper()
	if p.stopped {
		return p.output.String()
	}
	p.stopped = true
	if p.client != nil {
		_ = p.client.Close() // the daemon waits for open connections
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-p.exit; err != nil {
		t.Errorf("holdfastd: %v\n%s", err, p.output)
	}
	return p.output.String()
}

// TestConformance holds each real device to the suite again, with a daemon in between. What the devices offer is written
// down in the suites of their own packages; here it is what the daemon says.
func TestConformance(t *testing.T) {
	devices := startLab(t)
	p := startDaemon(t, devices)
	for backend, device := range map[string]string{"hsm": "softhsm2", "tpm": "swtpm", "card": "virtual PIV card"} {
		t.Run(backend, func(t *testing.T) {
			open := func(t *testing.T) holdfast.Backend {
				b, err := p.client.Backend(t.Context(), backend, nil)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			cfg := keytest.Config{
				Name:  device + " through the daemon",
				Open:  open,
				Needs: []keytest.Interface{keytest.Destroyer, keytest.Prober, keytest.Attester},
			}
			if backend == "tpm" {
				cfg.Needs = append(cfg.Needs, keytest.Sealer)
			} else {
				cfg.Needs = append(cfg.Needs, keytest.Unlocker)
			}
			for _, s := range open(t).Capabilities().Algorithms {
				if s.Resident {
					cfg.Resident = append(cfg.Resident, s.Algorithm)
				}
				if s.Wrapped {
					cfg.Wrapped = append(cfg.Wrapped, s.Algorithm)
				}
			}
			keytest.Run(t, cfg)
		})
	}
}

// TestWrongPIN starts a daemon whose card PIN is wrong again and again, as a supervisor would. The card is asked once.
func TestWrongPIN(t *testing.T) {
	devices := startLab(t)
	pins := filepath.Join(devices.Dir, "pins", "card")
	if err := os.WriteFile(pins, []byte("999999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	create := &pb.CreateKeyRequest{Name: "k", Backend: "card", Algorithm: "ES256", Purpose: "assertion"}
	for run := range 5 {
		p := startDaemon(t, devices)
		for range 3 {
			_, err := p.client.CreateKey(t.Context(), create)
			if !errors.Is(err, holdfast.ErrAuth) && !errors.Is(err, holdfast.ErrLocked) {
				t.Errorf("run %d: got %v", run, err)
			}
		}
		p.stop(t)
	}
	if n := devices.Card.PINTries(); n != 2 {
		t.Fatalf("the card has %d tries left, want 2: one wrong try, never another", n)
	}
	p := startDaemon(t, devices)
	unlock := &pb.UnlockBackendRequest{Name: "card", Pin: []byte("888888")}
	_, err := p.client.UnlockBackend(t.Context(), unlock)
	if e, ok := errors.AsType[*holdfast.Error](err); !ok || e.Code != holdfast.ErrAuth || e.Retries != 1 {
		t.Errorf("a person's wrong PIN: %v", err)
	}
	if err := os.WriteFile(pins, []byte(vpiv.DefaultPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := p.client.UnlockBackend(t.Context(), &pb.UnlockBackendRequest{Name: "card"})
	if err != nil || !b.GetAvailable() || b.GetPin().GetRefused() {
		t.Fatalf("a person's right PIN: %v, %v", b, err)
	}
	if _, err := p.client.CreateKey(t.Context(), create); err != nil {
		t.Errorf("after the PIN was put right: %v", err)
	}
}

// TestDevicesComeAndGo pulls the card and power-cycles the TPM under a running daemon.
func TestDevicesComeAndGo(t *testing.T) {
	devices := startLab(t)
	p := startDaemon(t, devices)
	ctx := t.Context()
	sign := func(name string) error {
		_, err := p.client.Sign(ctx, &pb.SignRequest{Name: name, Digest: make([]byte, 32)})
		return err
	}
	for _, backend := range []string{"card", "tpm"} {
		create := &pb.CreateKeyRequest{Name: backend, Backend: backend, Algorithm: "ES256", Purpose: "assertion"}
		if _, err := p.client.CreateKey(ctx, create); err != nil {
			t.Fatal(err)
		}
	}
	if err := devices.Reader.Remove(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := sign("card"); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("signing with a card that was pulled: %v", err)
	}
	if err := sign("tpm"); err != nil {
		t.Errorf("the TPM without the card: %v", err)
	}
	if err := devices.Reader.Insert(ctx, 0, devices.Card); err != nil {
		t.Fatal(err)
	}
	if err := sign("card"); err != nil {
		t.Errorf("signing with a card that is back: %v", err)
	}
	if err := devices.TPM.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sign("tpm"); err != nil {
		t.Errorf("signing with a TPM that was reset: %v", err)
	}
	if err := devices.TPM.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := sign("tpm"); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("signing with a TPM that is gone: %v", err)
	}
	if err := devices.TPM.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sign("tpm"); err != nil {
		t.Errorf("signing with a TPM that is back: %v", err)
	}
}

// TestSecretsStaySecret greps everything the daemon and the program print, and the daemon's files, for the PINs and for
// a sealed secret.
func TestSecretsStaySecret(t *testing.T) {
	devices := startLab(t)
	const pin, secret = "87654321", "canary-of-a-wallet"
	configPath := filepath.Join(devices.Dir, "holdfastd.yaml")
	text, err := os.ReadFile(configPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(configPath, append(text, "log: {level: debug}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(devices.Dir, "pins", "hsm"), []byte(pin), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startDaemon(t, devices)
	ctx := t.Context()
	var said strings.Builder
	note := func(err error) {
		if err != nil {
			said.WriteString(err.Error() + "\n")
		}
	}
	_, err = p.client.CreateKey(ctx, &pb.CreateKeyRequest{Name: "k", Backend: "hsm", Algorithm: "ES256", Purpose: "assertion"})
	note(err) // the PIN in the file is wrong
	_, err = p.client.UnlockBackend(ctx, &pb.UnlockBackendRequest{Name: "hsm", Pin: []byte(pin)})
	note(err)
	_, err = p.client.UnlockBackend(ctx, &pb.UnlockBackendRequest{Name: "hsm", Pin: []byte("1234")})
	note(err)
	sealed, err := p.client.Seal(ctx, &pb.SealRequest{Backend: "tpm", Secret: []byte(secret), AuthValue: []byte("canary-auth")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.client.Unseal(ctx, &pb.UnsealRequest{Backend: "tpm", Blob: sealed.GetBlob(), AuthValue: []byte("canary-wrong")})
	note(err)
	if said.Len() == 0 {
		t.Fatal("nothing was refused")
	}
	said.WriteString(p.stop(t))
	said.Write(sealed.GetBlob())
	grep(t, "what was printed", said.String(), pin, secret, "canary", devices.Token.SOPIN)
	err = filepath.WalkDir(filepath.Join(devices.Dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		grep(t, path, string(data), pin, secret, "canary")
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func grep(t *testing.T, where, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds %q", where, secret)
		}
	}
}

// TestStopLetsCallsFinish stops the daemon while the card holds up a signature, which is then released.
func TestStopLetsCallsFinish(t *testing.T) {
	devices := startLab(t)
	p := startDaemon(t, devices)
	create := &pb.CreateKeyRequest{Name: "k", Backend: "card", Algorithm: "ES256", Purpose: "assertion"}
	if _, err := p.client.CreateKey(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}, 1), make(chan struct{})
	devices.Card.Inject(vpiv.Fault{INS: 0x87, Slot: 0x82, Effect: vpiv.Hold{Entered: entered, Release: release}})
	signed := make(chan error, 1)
	go func() {
		_, err := p.client.Sign(t.Context(), &pb.SignRequest{Name: "k", Digest: make([]byte, 32)})
		signed <- err
	}()
	<-entered
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late, err := client.New(filepath.Join(devices.Dir, "holdfastd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Close() }() // it was only to ask

	for deadline := time.Now().Add(30 * time.Second); ; { // until the daemon takes no new calls
		if _, err := late.GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon takes calls after SIGTERM")
		}
	}
	close(release)
	if err := <-signed; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	p.stopped = true
	if err := <-p.exit; err != nil {
		t.Errorf("holdfastd: %v\n%s", err, p.output)
	}
}
