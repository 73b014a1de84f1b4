package softhsmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Token is a SoftHSM2 token that lives in a directory of its own or shares one with others.
type Token struct {
	Module string // path of libsofthsm2.so
	Label  string // CKA_LABEL of the token, unique within Dir
	Serial string // serial number as softhsm2-util shows it: 16 hexadecimal digits
	PIN    string // the user's PIN
	SOPIN  string // the security officer's PIN
	Dir    string // what holds Conf and the object files
	Conf   string // path of softhsm2.conf, the value SOFTHSM2_CONF must have when C_Initialize is called
}

// PINs of every token made here. They protect nothing.
const (
	tokenPIN   = "1234"
	tokenSOPIN = "12345678"
)

// softHSMModules lists where distributions put SoftHSM2's module.
var softHSMModules = [...]string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",
}

// SoftHSMModule returns the path of SoftHSM2's module, or an error that names the package to install.
func SoftHSMModule() (string, error) {
	for _, path := range softHSMModules {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("libsofthsm2.so is in none of the usual places: install the package softhsm2")
}

// NewToken initializes a token called label. Tokens made with the same dir share one softhsm2.conf, so that one process
// can use them all; dir is created where it does not exist, and removing it removes the tokens.
func NewToken(dir, label string) (*Token, error) {
	module, err := SoftHSMModule()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	t := &Token{
		Module: module, Label: label, PIN: tokenPIN, SOPIN: tokenSOPIN,
		Dir: dir, Conf: filepath.Join(dir, "softhsm2.conf"),
	}
	if err := t.writeConf(); err != nil {
		return nil, err
	}
	out, err := t.util("--init-token", "--free", "--label", label, "--so-pin", t.SOPIN, "--pin", t.PIN)
	if err != nil {
		return nil, fmt.Errorf("initialize token %q: %w: %s", label, err, out)
	}
	if t.Serial, err = t.readSerialAt(out); err != nil {
		return nil, err
	}
	return t, nil
}

// Tokens returns the directory that holds the object files of the tokens in Dir.
func (t *Token) Tokens() string { return filepath.Join(t.Dir, "tokens") }

// Environment returns what a process must have in its environment to use the token.
func (t *Token) Environment() map[string]string {
	return map[string]string{"SOFTHSM2_CONF": t.Conf}
}

func (t *Token) writeConf() error {
	if err := os.MkdirAll(t.Tokens(), 0o700); err != nil {
		return err
	}
	conf := "directories.tokendir = " + t.Tokens() + "\n" +
		"objectstore.backend = file\n" +
		"log.level = ERROR\n" +
		"slots.removable = false\n" +
		"slots.mechanisms = ALL\n" +
		"library.reset_on_fork = false\n"
	return os.WriteFile(t.Conf, []byte(conf), 0o600)
}

// util runs softhsm2-util in the foreground. The module reads its environment at C_Initialize, so a child with its own
// environment is how a process makes tokens without touching the configuration it is itself using.
func (t *Token) util(args ...string) (string, error) {
	cmd := exec.Command("softhsm2-util", append(args, "--module", t.Module)...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+t.Conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// readSerialAt asks for the serial number, which SoftHSM2 draws at random when it initializes a token. initialized is
// what it said then: which slot the token is in.
func (t *Token) readSerialAt(initialized string) (string, error) {
	_, slot, found := strings.Cut(initialized, "reassigned to slot ")
	if !found {
		return "", fmt.Errorf("softhsm2-util does not say where the new token is: %s", initialized)
	}
	slots, err := t.slots()
	if err != nil {
		return "", err
	}
	for _, s := range slots {
		if s.number == slot {
			return s.serial, nil
		}
	}
	return "", fmt.Errorf("the new token %q is not in the list of slots", t.Label)
}

// readSerial asks for the serial number of the token that has the label.
func (t *Token) readSerial() (string, error) {
	slots, err := t.slots()
	if err != nil {
		return "", err
	}
	for _, s := range slots {
		if s.label == t.Label && s.serial != "" {
			return s.serial, nil
		}
	}
	return "", fmt.Errorf("the token %q is not in the list of slots", t.Label)
}

// slot is what softhsm2-util shows of one.
type slot struct{ number, label, serial string }

func (t *Token) slots() ([]slot, error) {
	out, err := t.util("--show-slots")
	if err != nil {
		return nil, fmt.Errorf("show slots: %w: %s", err, out)
	}
	var slots []slot
	for line := range strings.Lines(out) {
		if number, found := strings.CutPrefix(line, "Slot "); found {
			slots = append(slots, slot{number: strings.TrimSpace(number)})
		}
		if len(slots) == 0 {
			continue
		}
		last := &slots[len(slots)-1]
		switch name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) {
		case "Serial number":
			last.serial = strings.TrimSpace(value)
		case "Label":
			last.label = strings.TrimSpace(value)
		}
	}
	return slots, nil
}

// TokenFor returns a new token called label for the rest of a test, in a directory of its own, and fails the test when
// there is no SoftHSM2.
func TokenFor(tb testing.TB, label string) *Token {
	tb.Helper()
	t, err := NewToken(tb.TempDir(), label)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}
