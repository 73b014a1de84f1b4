package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

// tally is what happened in all rounds.
type tally struct {
	counts
	kills, atStart int

	// What became of acts that were never answered.
	createdAfterAll, createUndone, destroyedAfterAll, destroyUndone int

	left       int // acts that killed daemons had begun on a device
	finished   int // of these, said in the log to be cleaned up
	emptyFiles int
	tokensLost int           // by SoftHSM2 itself, see tokenFile
	slowest    time.Duration // start after a kill
}

func (t *tally) add(c counts) {
	t.created += c.created
	t.destroyed += c.destroyed
	t.used += c.used
	t.interrupted += c.interrupted
}

// undone notes that the key of an act that was in state s is not there.
func (t *tally) undone(s state) {
	if s == creating {
		t.createUndone++
	} else {
		t.destroyedAfterAll++
	}
}

// kept notes that the key of an act that was in state s is there.
func (t *tally) kept(s state) {
	if s == creating {
		t.createdAfterAll++
	} else {
		t.destroyUndone++
	}
}

// readLog counts what the daemons said they cleaned up.
func (t *tally) readLog(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	t.finished = bytes.Count(text, []byte(`"msg":"interrupted act finished"`))
	return nil
}

func (t *tally) print(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		what string
		n    int
	}{
		{"kills", t.kills},
		{"  of these while the daemon started", t.atStart},
		{"acknowledged creations", t.created},
		{"acknowledged destructions", t.destroyed},
		{"verified uses", t.used},
		{"creations never answered", t.createdAfterAll + t.createUndone},
		{"  of these the key is there, whole", t.createdAfterAll},
		{"  of these nothing is there", t.createUndone},
		{"destructions never answered", t.destroyedAfterAll + t.destroyUndone},
		{"  of these the key is gone", t.destroyedAfterAll},
		{"  of these the key is there, whole", t.destroyUndone},
		{"acts left half done on a device", t.left},
		{"acts cleaned up", t.finished},
		{"empty object files that SoftHSM2 left in the token's folder", t.emptyFiles},
		{"tokens that SoftHSM2 lost in the middle of a login (repaired)", t.tokensLost},
	} {
		fmt.Fprintf(out, "%s\t%d\n", line.what, line.n)
	}
	fmt.Fprintf(out, "slowest start after a kill\t%s\n", t.slowest.Round(time.Millisecond))
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "nothing acknowledged was lost, nothing is half there")
	return err
}
