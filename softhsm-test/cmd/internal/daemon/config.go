package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	softhsmtest "holdfast/softhsm-test"
)

// Backend is one device of a daemon. Name and one of Token, TPM and Card are required.
type Backend struct {
	Name  string
	Token *softhsmtest.Token
	TPM   *softhsmtest.TPM
	Card  *Card

	// Unverified leaves out the verification of signatures before they are released.
	Unverified bool

	// SessionCopies signs with copies of the token's keys that are session objects.
	SessionCopies bool
}

// Card is a PIV card.
type Card struct {
	Serial uint32
	PIN    string
	Socket string // of the PC/SC daemon
}

func socketPath(dir string) string { return filepath.Join(dir, "holdfastd.sock") }

// StateDir returns the folder in which the daemon of dir keeps its database.
func StateDir(dir string) string { return filepath.Join(dir, "state") }

// writeConfig writes the configuration file and returns its path. Go's quoting of a string is YAML's.
func writeConfig(cfg Config) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "state_dir: %q\nsocket: {path: %q}\nlog: {format: json}\nbackends:\n",
		StateDir(cfg.Dir), socketPath(cfg.Dir))
	for _, b := range cfg.Backends {
		fmt.Fprintf(&text, "  - name: %q\n    verify_after_sign: %t\n", b.Name, !b.Unverified)
		switch {
		case b.Token != nil:
			// The PIN protects nothing: the token is thrown away.
			fmt.Fprintf(&text, "    pkcs11:\n      module: %q\n      token_label: %q\n      serial: %q\n      pin: {insecure: %q}\n"+
				"      environment: {SOFTHSM2_CONF: %q}\n      session_copies: %t\n",
				b.Token.Module, b.Token.Label, b.Token.Serial, b.Token.PIN, b.Token.Conf, b.SessionCopies)
		case b.TPM != nil:
			fmt.Fprintf(&text, "    tpm2: {device: %q}\n", "unix:"+b.TPM.SocketPath)
		case b.Card != nil:
			fmt.Fprintf(&text, "    piv:\n      serial: %d\n      pin: {insecure: %q}\n"+
				"      environment: {PCSCLITE_CSOCK_NAME: %q}\n", b.Card.Serial, b.Card.PIN, b.Card.Socket)
		default:
			return "", fmt.Errorf("backend %q has no device", b.Name)
		}
	}
	path := filepath.Join(cfg.Dir, "holdfastd.yaml")
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text.String()), 0o600)
}
