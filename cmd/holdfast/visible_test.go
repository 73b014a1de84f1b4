package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestTextsOfOthersStayOnTheirLine prints what a hostile device or bundle could call itself.
func TestTextsOfOthersStayOnTheirLine(t *testing.T) {
	var out bytes.Buffer
	c := &cli{out: &out}
	const hostile = "x\x1b[2J\n  ✓ all is well\r\u202e\u009b'\\"
	if err := c.fields("label", hostile); err != nil {
		t.Fatal(err)
	}
	if err := c.table([][]string{{"LABEL"}, {hostile, "é"}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 3 || strings.ContainsAny(got, "\x1b\r\u202e\u009b") || !strings.Contains(got, "é") {
		t.Errorf("printed: %q", got)
	}
	if got := visible(hostile); got != `x\x1b[2J\n  ✓ all is well\r\u202e\u009b'\` {
		t.Errorf("visible: %s", got)
	}
	if got := visibleLines("a\n\tb\x1b"); got != "a\n  b\\x1b" {
		t.Errorf("visibleLines: %q", got)
	}
}
