package api

import (
	"os"
	"testing"
)

func TestAccess(t *testing.T) {
	self := uint32(os.Geteuid())
	a := Access{UIDs: []uint32{1001}, GIDs: []uint32{2000}}
	for _, test := range []struct {
		who  string
		uid  uint32
		gid  uint32
		want bool
	}{
		{"root", 0, 0, true},
		{"the daemon's own user", self, 4711, true},
		{"an allowed user", 1001, 4711, true},
		{"a user of an allowed group", 1234, 2000, true},
		{"a stranger", 1234, 4711, false},
		{"a stranger with the number of an allowed group", 2000, 4711, false},
		{"a stranger in a group with the number of an allowed user", 1234, 1001, false},
	} {
		if got := a.allows(Caller{UID: test.uid, GID: test.gid}); got != test.want {
			t.Errorf("%s: %v", test.who, got)
		}
	}
}
