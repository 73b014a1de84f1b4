package main

import (
	"fmt"
	"os"
	"path/filepath"

	softhsmtest "holdfast/softhsm-test"
)

// tokenFile is SoftHSM2's file about a token itself. C_Login writes it anew, after emptying it: a process that is killed
// in that moment leaves an empty file, and the token is gone with all its keys. That is the device's own failure, which
// nobody above can prevent and no other device has; so that the run can go on, it is counted and repaired.
type tokenFile struct {
	path string
	text []byte
}

// readTokenFile remembers the file as it is now.
func readTokenFile(t *softhsmtest.Token) (*tokenFile, error) {
	paths, err := filepath.Glob(filepath.Join(t.Tokens(), "*", "token.object"))
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("there are %d tokens in %s", len(paths), t.Tokens())
	}
	text, err := os.ReadFile(paths[0])
	return &tokenFile{paths[0], text}, err
}

// repair puts the file back if it is empty, and reports whether it was.
func (f *tokenFile) repair() (bool, error) {
	info, err := os.Stat(f.path)
	if err != nil || info.Size() > 0 {
		return false, err
	}
	return true, os.WriteFile(f.path, f.text, 0o600)
}
