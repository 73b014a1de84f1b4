package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"holdfast/cmd/internal/daemon"
	"holdfast/softhsm-test/lab"
)

// TestMain makes both programs available to scripts and tests as commands of their own: real processes of this binary.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"holdfast":  main,
		"holdfastd": daemonMain,
	})
}

func daemonMain() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := daemon.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// labTimeout bounds how long devices may take to come up on a busy machine.
const labTimeout = 2 * time.Minute

// startLab brings up the three devices for one test.
func startLab(t testing.TB) *lab.Lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // not t.TempDir: the path would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what is left in a temporary folder harms nobody
	ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
	defer cancel()
	devices, err := lab.Start(ctx, dir)
	t.Cleanup(func() {
		if err := devices.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop devices: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return devices
}

// TestScripts runs testdata/*.txtar, each with devices and a state of its own. $D is the devices' folder.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			devices := startLab(env.T().(testing.TB))
			env.Setenv("D", devices.Dir)
			env.Setenv("HOLDFAST_SOCKET", filepath.Join(devices.Dir, "holdfastd.sock"))
			env.Setenv("MODULE", devices.Token.Module)
			env.Setenv("SOFTHSM2_CONF", devices.Token.Conf)
			env.Setenv("WEB", strings.TrimSpace(read(env, filepath.Join(devices.Dir, "web", "address"))))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"flipbit": flipBit,
			"field":   field,
		},
	})
}

func read(env *testscript.Env, path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		env.T().Fatal(err)
	}
	return string(text)
}

// flipBit changes one bit in the middle of a file: flipbit FILE.
func flipBit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flipbit FILE")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// field sets an environment variable to what follows a word on the line of the last output that starts with it:
// field NAME WORD.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field NAME WORD")
	}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == args[1] {
			ts.Setenv(args[0], words[1])
			return
		}
	}
	ts.Fatalf("no line starts with %q", args[1])
}
