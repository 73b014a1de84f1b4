//go:build cgo && !nopkcs11

package hsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// C_Initialize is for a whole process. What needs a process of its own, another PKCS#11 client or a module with other
// surroundings, runs in a child that is this test binary again.

// childVariable holds, in a child, what it is to do.
const childVariable = "HOLDFAST_HSM_TEST_CHILD"

// childTask is what a child is to do.
type childTask struct {
	Name                       string
	Module, Label, Serial, PIN string
	InitString, Dir            string
	KeyLabel                   string
	KeyID                      []byte
	Public                     []byte // SubjectPublicKeyInfo
}

// childTasks maps the name of a task to what does it; what it returns is what the parent gets.
var childTasks = map[string]func(childTask) (any, error){
	"crypto11 makes": crypto11Makes,
	"crypto11 uses":  crypto11Uses,
	"nss":            nssTask,
	"full":           fullTask,
}

// runChild does the task in the environment and prints its outcome.
func runChild(task string) int {
	var t childTask
	if err := json.Unmarshal([]byte(task), &t); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	out, err := childTasks[t.Name](t)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// inChild has a child do a task and stores what it returns in out. It fails the test when the child fails.
func inChild(t *testing.T, task childTask, env []string, attributes *syscall.SysProcAttr, out any) {
	t.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(append(os.Environ(), env...), childVariable+"="+string(text))
	if attributes == nil {
		attributes = &syscall.SysProcAttr{}
	}
	attributes.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = attributes
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("child %q: %v: %s", task.Name, err, stderr.Bytes())
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		t.Fatalf("child %q said %q: %v", task.Name, stdout.Bytes(), err)
	}
}
