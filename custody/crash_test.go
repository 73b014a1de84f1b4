//go:build cgo && !nopkcs11 && !nopiv

package custody

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast"
	"holdfast/custody/store"
	softhsmtest "holdfast/softhsm-test"
)

// The tests of this file run the test binary again as a child that dies by SIGKILL, and then look at what it left. What
// the child is to do is in these variables of its environment.
const (
	envDir    = "HOLDFAST_TEST_CRASH_DIR"
	envScript = "HOLDFAST_TEST_CRASH_SCRIPT"
	envStep   = "HOLDFAST_TEST_CRASH_STEP"
	envToken  = "HOLDFAST_TEST_CRASH_TOKEN" // the SoftHSM2 token to work on, as JSON; empty for the software device
)

// script is what a child does, after having acknowledged that it is up.
type script func(ctx context.Context, s *Service, acknowledge func(what, name string)) error

func scripts() map[string]script {
	create := func(r holdfast.Residence) script {
		return func(ctx context.Context, s *Service, _ func(what, name string)) error {
			_, err := s.CreateKey(ctx, request("new", holdfast.ES256, r))
			return err
		}
	}
	destroy := func(name string) script {
		return func(ctx context.Context, s *Service, _ func(what, name string)) error { return s.DestroyKey(ctx, name) }
	}
	return map[string]script{
		"create resident":  create(holdfast.Resident),
		"create wrapped":   create(holdfast.Wrapped),
		"destroy resident": destroy("old resident"),
		"destroy wrapped":  destroy("old wrapped"),
		"loop":             loop,
	}
}

// loop makes and destroys keys until it is killed.
func loop(ctx context.Context, s *Service, acknowledge func(what, name string)) error {
	run := rand.Uint32()
	for i := 0; ; i++ {
		name, r := fmt.Sprintf("key %08x %d", run, i), holdfast.Residence(1+i%2)
		acknowledge("creating", name)
		if _, err := s.CreateKey(ctx, request(name, holdfast.ES256, r)); err != nil {
			return err
		}
		acknowledge("created", name)
		if i%3 == 0 {
			acknowledge("destroying", name)
			if err := s.DestroyKey(ctx, name); err != nil {
				return err
			}
			acknowledge("destroyed", name)
		}
	}
}

// TestMain makes the test binary the child when it is asked to be.
func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		if err := child(context.Background(), dir, os.Getenv(envScript), os.Getenv(envStep)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(ctx context.Context, dir, name, step string) error {
	st, err := store.Open(ctx, filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	backend := BackendConfig{Name: "soft", Open: (&fixture{dir: dir}).open}
	if text := os.Getenv(envToken); text != "" {
		var token softhsmtest.Token
		if err := json.Unmarshal([]byte(text), &token); err != nil {
			return err
		}
		backend = tokenBackend(&token, st)
	}
	s, err := newService(ctx, Config{Store: st, Backends: []BackendConfig{backend}}, func(done string) {
		if done == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
	})
	if err != nil {
		return err
	}
	acknowledge := func(what, name string) { fmt.Println(what + "\t" + name) }
	acknowledge("up", "")
	if err := scripts()[name](ctx, s, acknowledge); err != nil {
		return err
	}
	return errors.Join(s.Close(), st.Close())
}

// tokenBackend is a SoftHSM2 token in the place of the software device.
func tokenBackend(token *softhsmtest.Token, s *store.Store) BackendConfig {
	b := hsmConfig(token, s)
	b.Name = "soft"
	return b
}

// crashDevices are the devices that the tests of this file run on.
func crashDevices() []string { return []string{"softkey", "softhsm2"} }

// newCrashFixture returns a fixture on the device, and what a child has to know of it.
func newCrashFixture(t *testing.T, device string) (f *fixture, token string) {
	t.Helper()
	if device == "softkey" {
		return newFixture(t), ""
	}
	made := softhsmtest.TokenFor(t, "crash")
	text, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	f = &fixture{dir: t.TempDir()}
	f.adjust = func(c *Config) { c.Backends = []BackendConfig{tokenBackend(made, f.store)} }
	f.list = func() (refs []holdfast.Ref) {
		for k, err := range f.service.backends["soft"].device.Load().Keys(t.Context()) {
			if err != nil {
				t.Error(err)
				continue
			}
			refs = append(refs, k.Ref())
		}
		slices.Sort(refs)
		return refs
	}
	f.start(t)
	t.Cleanup(func() { f.stop(t) })
	return f, string(text)
}

// startChild starts a child on the fixture's folder and returns what it writes.
func startChild(t *testing.T, dir, token, script, step string) (*exec.Cmd, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envDir+"="+dir, envScript+"="+script, envStep+"="+step, envToken+"="+token)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func wasKilled(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func TestKillBetweenEveryTwoSteps(t *testing.T) {
	steps := map[string][]string{
		"create resident":  {"planned", "intended", "generated", "recorded"},
		"create wrapped":   {"generated", "recorded"},
		"destroy resident": {"intended", "destroyed", "finished"},
		"destroy wrapped":  {"finished"},
	}
	for _, device := range crashDevices() {
		for script, list := range steps {
			for _, step := range list {
				t.Run(device+": "+script+" after "+step, func(t *testing.T) { killAfter(t, device, script, step) })
			}
		}
	}
}

func killAfter(t *testing.T, device, script, step string) {
	f, token := newCrashFixture(t, device)
	old := f.create(t, "old resident", holdfast.ES256, holdfast.Resident)
	f.create(t, "old wrapped", holdfast.ES256, holdfast.Wrapped)
	f.stop(t)
	cmd, out := startChild(t, f.dir, token, script, step)
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); !wasKilled(err) {
		t.Fatalf("the child was to die after %q: %v", step, err)
	}
	f.start(t)
	want := map[string]bool{"old resident": true, "old wrapped": true}
	switch {
	case script == "destroy resident": // destroyed from the moment it was intended
		want["old resident"] = false
		if _, err := f.store.Tombstone(t.Context(), old.ID); err != nil {
			t.Error(err)
		}
	case script == "destroy wrapped":
		want["old wrapped"] = false
	case step == "recorded":
		want["new"] = true
	}
	f.checkWhole(t, want)
}

// checkWhole checks that exactly the wanted keys exist, can be used, and are all there is on the device, and that
// nothing is left to be finished. A key that maps to false must not exist.
func (f *fixture) checkWhole(t *testing.T, want map[string]bool) {
	t.Helper()
	keys, next, err := f.service.Keys(t.Context(), ListOptions{Limit: MaxPage})
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	var onDevice []holdfast.Ref
	for _, k := range keys {
		if !want[k.Name] {
			t.Errorf("%q exists", k.Name)
		}
		delete(want, k.Name)
		if k.Residence == holdfast.Resident {
			onDevice = append(onDevice, k.Ref)
		}
		digest := k.Algorithm.Digest([]byte(k.Name))
		signature, err := f.service.Sign(t.Context(), k.Name, digest)
		if err := errors.Join(err, holdfast.Verify(k.Algorithm, k.Public, digest, signature)); err != nil {
			t.Errorf("%q: %v", k.Name, err)
		}
	}
	for name, lost := range want {
		if lost {
			t.Errorf("%q was lost", name)
		}
	}
	slices.Sort(onDevice)
	if refs := f.refs(t); !slices.Equal(refs, onDevice) {
		t.Errorf("on the device: %v\nin the records: %v", refs, onDevice)
	}
	i, err := f.service.InspectBackend(t.Context(), "soft")
	if err != nil || len(i.Missing)+len(i.Changed)+len(i.Undead)+len(i.Foreign)+len(i.Unusable)+len(i.Pending) != 0 {
		t.Errorf("%+v, %v", i, err)
	}
	if n := f.store.Count("soft"); n != len(keys) {
		t.Errorf("%d records are counted, %d listed", n, len(keys))
	}
}

func TestKillAtRandomMoments(t *testing.T) {
	for _, device := range crashDevices() {
		t.Run(device, func(t *testing.T) { killAtRandom(t, device) })
	}
}

func killAtRandom(t *testing.T, device string) {
	f, token := newCrashFixture(t, device)
	f.stop(t)
	want := map[string]bool{}
	rounds := 25
	if device != "softkey" {
		rounds = 10 // opening a token takes longer
	}
	for range rounds {
		cmd, out := startChild(t, f.dir, token, "loop", "")
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("the child did not come up")
		}
		timer := time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = cmd.Process.Kill() })
		open := map[string]bool{} // acts that were begun and not acknowledged: either outcome will do
		for lines.Scan() {
			what, name, complete := strings.Cut(lines.Text(), "\t")
			if !complete {
				continue // cut off by the kill
			}
			switch what {
			case "creating", "destroying":
				open[name] = true
			case "created":
				want[name] = true
				delete(open, name)
			case "destroyed":
				want[name] = false
				delete(open, name)
			}
		}
		timer.Stop()
		if err := cmd.Wait(); !wasKilled(err) {
			t.Fatal(err)
		}
		f.start(t)
		for name := range open {
			_, err := f.service.Key(t.Context(), name)
			want[name] = err == nil
		}
		expected := make(map[string]bool, len(want))
		maps.Copy(expected, want)
		f.checkWhole(t, expected)
		f.stop(t)
	}
	if len(want) == 0 {
		t.Error("no child did anything")
	}
}
