package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"holdfast"
)

// PIN says where a PIN comes from: exactly one field is set.
type PIN struct {
	// File holds the PIN; one line end after it is ignored. Others must not be able to read it.
	File string `yaml:"file"`

	// Credential is the name of a systemd credential (LoadCredential=NAME:...).
	Credential string `yaml:"credential"`

	// Prompt asks on the terminal the daemon was started from.
	Prompt bool `yaml:"prompt"`

	// Insecure is the PIN itself, in a file that people copy around.
	Insecure string `yaml:"insecure"`
}

const maxPIN = 255

func (p PIN) check(field string) error {
	n := 0
	for _, set := range []bool{p.File != "", p.Credential != "", p.Prompt, p.Insecure != ""} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf(
			"%s: say where the PIN comes from with one of file, credential and prompt (or insecure: the PIN itself)", field)
	}
	return nil
}

// Read returns the PIN. what names the device in the prompt and in errors. It is asked each time a device wants the PIN,
// so that a changed file counts without a restart.
func (p PIN) Read(_ context.Context, what string) (holdfast.Secret, error) {
	switch {
	case p.File != "":
		return readPIN(p.File, what)
	case p.Credential != "":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" || filepath.Base(p.Credential) != p.Credential {
			return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "", "PIN of %s: systemd passed no credential %q; "+
				"add LoadCredential=%s:FILE to the unit", what, p.Credential, p.Credential)
		}
		return readPIN(filepath.Join(dir, p.Credential), what)
	case p.Prompt:
		return promptPIN(what)
	default:
		return holdfast.NewSecret([]byte(p.Insecure)), nil
	}
}

func readPIN(path, what string) (holdfast.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "", "PIN of %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "", "PIN of %s: %w", what, err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "",
			"PIN of %s: others can read %s (mode %04o); run chmod 600 %s",
			what, path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPIN+2))
	if err != nil {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "", "PIN of %s: %w", what, err)
	}
	return checkPIN(text, what)
}

func checkPIN(text []byte, what string) (holdfast.Secret, error) {
	pin := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(pin) == 0 || len(pin) > maxPIN {
		clear(text)
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "",
			"PIN of %s: it is empty or longer than %d bytes", what, maxPIN)
	}
	return holdfast.NewSecret(pin), nil
}

func promptPIN(what string) (holdfast.Secret, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "", "PIN of %s: there is no terminal to ask on; "+
			"name a file or a credential in the configuration", what)
	}
	defer tty.Close()
	if _, err := fmt.Fprintf(tty, "PIN of %s: ", what); err != nil {
		return holdfast.Secret{}, err
	}
	text, err := term.ReadPassword(int(tty.Fd()))
	_, newlineErr := fmt.Fprintln(tty)
	if err := errors.Join(err, newlineErr); err != nil {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrInvalid, "", "PIN of %s: %w", what, err)
	}
	return checkPIN(text, what)
}
