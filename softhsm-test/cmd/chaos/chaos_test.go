package main

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"holdfast"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// TestKill is a short run of what the program does.
func TestKill(t *testing.T) {
	dir, err := os.MkdirTemp("", "hfkill") // not t.TempDir, whose long names do not fit in a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's folder is left in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	binary, err := daemon.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	if err := torment(t.Context(), dir, binary, true, 10, seed, t.Output()); err != nil {
		t.Fatal(err)
	}
}

// TestFindings shows that the comparison of devices and records finds what it is there to find.
func TestFindings(t *testing.T) {
	whole := []string{privateObject, publicObject}
	for name, test := range map[string]struct {
		found, recorded rawKeys
		want            string
	}{
		"in step":              {rawKeys{"a": whole}, rawKeys{"a": whole}, ""},
		"record without a key": {rawKeys{}, rawKeys{"a": whole}, "should be there"},
		"key without a record": {rawKeys{"a": whole}, rawKeys{}, "in no record"},
		"half a key":           {rawKeys{"a": whole[1:]}, rawKeys{"a": whole}, "should be there"},
		"half without record":  {rawKeys{"a": whole[1:]}, rawKeys{}, "in no record"},
		"a part twice":         {rawKeys{"a": slices.Concat(whole, whole)}, rawKeys{"a": whole}, "should be there"},
	} {
		t.Run(name, func(t *testing.T) {
			err := compare(onToken, test.found, test.recorded)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestNamesOnDevices(t *testing.T) {
	if id, err := tokenIDOf("pkcs11:token=t;serial=1;id=%00%FF%61", "n"); err != nil || id != tokenKeyID("\x00\xffa", "n") {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := tokenIDOf("pkcs11:token=t", "n"); err == nil {
		t.Error("a ref without an id was taken")
	}
	if h, err := handleOf("tpm:handle=0x81008000;serial=ab"); err != nil || h != "0x81008000" {
		t.Errorf("%q, %v", h, err)
	}
	if s, err := slotOf("piv:serial=1;slot=9a;id=00"); err != nil || s != "9a" {
		t.Errorf("%q, %v", s, err)
	}
	if !isOwn(tokenKeyID("x", "holdfast wrapping key")) || isOwn(tokenKeyID("x", "caller 1 key 1")) {
		t.Error("the daemon's own keys are not told from others")
	}
	if parts := tokenParts(holdfast.A256GCM); !slices.Equal(parts, []string{secretObject}) {
		t.Errorf("a secret key consists of %q", parts)
	}
}
