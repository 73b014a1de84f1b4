package softhsmtest_test

import (
	"os"
	"strings"
	"testing"

	softhsmtest "holdfast/softhsm-test"
)

func TestNewTokenSharesADirectory(t *testing.T) {
	dir := t.TempDir()
	a, err := softhsmtest.NewToken(dir, "first")
	if err != nil {
		t.Fatal(err)
	}
	b, err := softhsmtest.NewToken(dir, "second")
	if err != nil {
		t.Fatal(err)
	}
	if a.Conf != b.Conf {
		t.Errorf("tokens of one directory have two configurations: %s, %s", a.Conf, b.Conf)
	}
	if a.Serial == b.Serial || len(a.Serial) != 16 {
		t.Errorf("serials %q and %q", a.Serial, b.Serial)
	}
	entries, err := os.ReadDir(a.Tokens())
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d tokens on disk, want 2 (%v)", len(entries), err)
	}
	conf, err := os.ReadFile(a.Conf)
	if err != nil || !strings.Contains(string(conf), a.Tokens()) {
		t.Errorf("the configuration does not name %s: %v", a.Tokens(), err)
	}
}
