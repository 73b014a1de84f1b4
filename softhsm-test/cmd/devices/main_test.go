package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"holdfast/softhsm-test/lab"
)

// up is a running instance of the command.
type up struct {
	t    *testing.T
	stop context.CancelFunc
	done chan int
	errs *bytes.Buffer // complete when done was received from
}

// bringUp runs the command until it is ready.
func bringUp(t *testing.T, dir string) *up {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	u := &up{t, stop, make(chan int, 1), new(bytes.Buffer)}
	out, in := io.Pipe()
	go func() {
		code := run(ctx, []string{"--dir", dir}, in, u.errs)
		_ = in.Close()
		u.done <- code
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		code := <-u.done
		t.Fatalf("not ready: %q, %v; code %d: %s", line, err, code, u.errs)
	}
	t.Cleanup(stop)
	return u
}

func (u *up) takeDown() {
	u.t.Helper()
	u.stop()
	if code := <-u.done; code != exitOK {
		u.t.Fatalf("code %d: %s", code, u.errs)
	}
}

// shortDir returns a folder whose name leaves room for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devices")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// ask runs a program with an addition to its environment and returns what it printed.
func ask(t *testing.T, environment, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), environment)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

// identities asks each device, with programs that know nothing of us, who it is.
func identities(t *testing.T, dir string) map[string]string {
	t.Helper()
	slots := ask(t, "SOFTHSM2_CONF="+filepath.Join(dir, "softhsm", "softhsm2.conf"), "softhsm2-util", "--show-slots")
	if !strings.Contains(slots, "holdfast") {
		t.Errorf("no token holdfast: %s", slots)
	}
	// Only the slots with a token have a serial number that stays.
	token, _, _ := strings.Cut(slots, "Initialized:      no")
	ek := filepath.Join(t.TempDir(), "ek")
	ask(t, "TPM2TOOLS_TCTI=swtpm:path="+filepath.Join(dir, "swtpm", "tpm.sock"), "tpm2_createek", "-c", "-", "-G", "rsa", "-u", ek)
	endorsement, err := os.ReadFile(ek)
	if err != nil {
		t.Fatal(err)
	}
	card := ask(t, "PCSCLITE_CSOCK_NAME="+filepath.Join(dir, "pcscd", "pcscd.comm"), "piv-tool", "--serial")
	return map[string]string{"token": token, "TPM": string(endorsement), "card": card}
}

func TestSameDevicesAgain(t *testing.T) {
	dir := shortDir(t)
	u := bringUp(t, dir)
	before := identities(t, dir)
	configuration, err := os.ReadFile(filepath.Join(dir, "holdfastd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	anchors := readAll(t, dir)
	u.takeDown()
	for _, socket := range []string{"pcscd/pcscd.comm"} {
		if _, err := os.Stat(filepath.Join(dir, socket)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", socket, err)
		}
	}

	u = bringUp(t, dir)
	defer u.takeDown()
	for name, who := range identities(t, dir) {
		if who == "" || who != before[name] {
			t.Errorf("%s: another one: %q, was %q", name, who, before[name])
		}
	}
	if again, err := os.ReadFile(filepath.Join(dir, "holdfastd.yaml")); err != nil || !bytes.Equal(again, configuration) {
		t.Errorf("the configuration changed: %v\n%s", err, again)
	}
	for name, data := range readAll(t, dir) {
		if !bytes.Equal(data, anchors[name]) {
			t.Errorf("%s changed", name)
		}
	}
}

// readAll reads PINs and trust anchors and checks that nobody else can.
func readAll(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, name := range []string{
		"pins/hsm", "pins/hsm-so", "pins/card", "trust/tpm-ek-ca.pem", "trust/piv-attestation-root.pem", "trust/web-ca.pem",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if strings.HasSuffix(name, ".pem") && !x509.NewCertPool().AppendCertsFromPEM(data) {
			t.Errorf("%s holds no certificate", name)
		}
		all[name] = data
	}
	return all
}

func TestConfiguration(t *testing.T) {
	dir := filepath.Join(shortDir(t), `a "b": c`) // softhsm2.conf takes no #
	defer bringUp(t, dir).takeDown()
	text, err := os.ReadFile(filepath.Join(dir, "holdfastd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		StateDir string `yaml:"state_dir"`
		HTTP     struct{ Listen, Certificate, Key string }
		Resolver struct{ Pins map[string]string }
		Backends []struct {
			Name   string
			PKCS11 struct{ Environment map[string]string } `yaml:"pkcs11"`
			TPM2   struct{ Device string }                 `yaml:"tpm2"`
			PIV    struct{ Environment map[string]string } `yaml:"piv"`
		}
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if c.StateDir != filepath.Join(dir, "state") || len(c.Backends) != 3 || c.Resolver.Pins[lab.Domain+":443"] != c.HTTP.Listen {
		t.Errorf("%+v", c)
	}
	for _, path := range []string{
		c.Backends[0].PKCS11.Environment["SOFTHSM2_CONF"], strings.TrimPrefix(c.Backends[1].TPM2.Device, "unix:"),
		c.Backends[2].PIV.Environment["PCSCLITE_CSOCK_NAME"],
	} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(c.HTTP.Certificate, c.HTTP.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readAll(t, dir)["trust/web-ca.pem"])
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: lab.Domain}); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"--dir"}, {"--dir", "x", "y"}, {"--what"}} {
		if code := run(t.Context(), args, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%q: code %d", args, code)
		}
	}
	if code := run(t.Context(), []string{"--help"}, io.Discard, io.Discard); code != exitOK {
		t.Errorf("help: code %d", code)
	}
	long := filepath.Join(shortDir(t), strings.Repeat("x", 100))
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"--dir", long}, io.Discard, &errs); code != exitFailed || errs.Len() == 0 {
		t.Errorf("path too long: code %d, %s", code, &errs)
	}
}
