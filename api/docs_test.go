package api

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"holdfast"
)

// TestErrorTable holds the table of error codes in docs/cli.md to the one in the code, row for row.
func TestErrorTable(t *testing.T) {
	text, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| code | gRPC | HTTP |")
	if !ok {
		t.Fatal("docs/cli.md has no table of errors")
	}
	var rows []string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		if len(cells) == 4 {
			rows = append(rows, strings.Join(cells[:3], " | "))
		} else if len(rows) > 0 {
			break
		}
	}
	if len(rows) != len(wireCodes) {
		t.Fatalf("docs/cli.md has %d codes, the code %d", len(rows), len(wireCodes))
	}
	for i, w := range wireCodes {
		if want := fmt.Sprintf("| %s | %s | %d", w.reason, w.grpc, w.http); rows[i] != want {
			t.Errorf("docs/cli.md says %q, the code %q", rows[i], want)
		}
	}
}

// TestEveryCodeIsOnTheWire fails when a code is added to the contract and not to the table.
func TestEveryCodeIsOnTheWire(t *testing.T) {
	for c := holdfast.ErrInternal; !strings.HasPrefix(c.Error(), "code "); c++ {
		if got, ok := codeOfReason(Reason(c)); !ok || got != c {
			t.Errorf("%v comes back as %v", c, got)
		}
	}
}
