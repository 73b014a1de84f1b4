package softhsmtest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// KeepToken returns the token called label in dir: the one that is there, or a new one as NewToken makes it. It is for
// tokens that outlive the process.
func KeepToken(dir, label string) (*Token, error) {
	module, err := SoftHSMModule()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	t := &Token{
		Module: module, Label: label, PIN: tokenPIN, SOPIN: tokenSOPIN,
		Dir: dir, Conf: filepath.Join(dir, "softhsm2.conf"),
	}
	if _, err := os.Stat(t.Conf); errors.Is(err, fs.ErrNotExist) {
		return NewToken(dir, label)
	}
	// The folder may have been moved: the paths in the configuration are written anew.
	if err := t.writeConf(); err != nil {
		return nil, err
	}
	if t.Serial, err = t.readSerial(); err != nil {
		return NewToken(dir, label) // the process that made the configuration did not get to make the token
	}
	return t, nil
}

// KeepTPM starts the TPM that lives in dir: a newly manufactured one at first, later the same one with what is in its
// non-volatile memory, at the same paths. dir is made where it does not exist.
func KeepTPM(ctx context.Context, dir string) (*TPM, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	factory := filepath.Join(dir, "manufactured")
	if err := manufactureTPM(ctx, factory); err != nil {
		return nil, err
	}
	if err := copyOnce(filepath.Join(dir, swtpmState), filepath.Join(factory, swtpmState)); err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(factory, swtpmRoots))
	if err != nil {
		return nil, err
	}
	t := &TPM{
		SocketPath:  filepath.Join(dir, "tpm.sock"),
		ControlPath: filepath.Join(dir, "tpm.sock.ctrl"), // where tpm2-tools look for it
		CARoot:      root,
		stateDir:    dir,
	}
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// copyOnce copies a file unless the copy is there; a copy is whole or not there.
func copyOnce(to, from string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}
