package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"holdfast"
)

func cliPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPageHasEveryCommand holds the table of commands in docs/cli.md to the program, both ways. A row names a command
// first; what follows in a cell of the same row may leave its group out.
func TestPageHasEveryCommand(t *testing.T) {
	root := (&cli{}).root()
	root.InitDefaultCompletionCmd("bash")
	documented := map[string]bool{}
	code := regexp.MustCompile("`([^`]+)`")
	flag := regexp.MustCompile(`--[a-z-]+`)
	for line := range strings.Lines(cliPage(t)) {
		row, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		cells := strings.SplitN("`"+row, " | ", 2)
		var commands []*cobra.Command
		var group []string
		for _, span := range code.FindAllStringSubmatch(cells[0], -1) {
			words := strings.Fields(span[1])
			if strings.HasPrefix(words[0], "--") || strings.HasPrefix(words[0], "[") {
				continue // flags of the row's commands
			}
			cmd, _, err := root.Find(words)
			if err != nil || cmd == root {
				cmd, _, err = root.Find(append(slices.Clone(group), words...))
			}
			if err != nil || !cmd.Runnable() {
				t.Errorf("there is no command %q", span[1])
				continue
			}
			if cmd.HasParent() && cmd.Parent() != root {
				group = []string{cmd.Parent().Name()}
			}
			commands = append(commands, cmd)
			documented[cmd.CommandPath()] = true
		}
		for _, name := range flag.FindAllString(line, -1) {
			has := func(cmd *cobra.Command) bool { return cmd.Flag(strings.TrimPrefix(name, "--")) != nil }
			if !slices.ContainsFunc(commands, has) {
				t.Errorf("%s is no flag of %s", name, cells[0])
			}
		}
	}
	for _, cmd := range leaves(root) {
		if !documented[cmd.CommandPath()] && !strings.HasPrefix(cmd.CommandPath(), "holdfast completion") {
			t.Errorf("docs/cli.md does not name %q", cmd.CommandPath())
		}
	}
}

func leaves(cmd *cobra.Command) []*cobra.Command {
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	var all []*cobra.Command
	for _, sub := range cmd.Commands() {
		all = append(all, leaves(sub)...)
	}
	return all
}

// TestPageHasEveryAlgorithm holds the list in docs/cli.md to the code, both ways.
func TestPageHasEveryAlgorithm(t *testing.T) {
	_, text, _ := strings.Cut(cliPage(t), "\nAlgorithms: ")
	text, _, ok := strings.Cut(text, ".")
	if !ok {
		t.Fatal("docs/cli.md has no list of algorithms")
	}
	var listed []holdfast.Algorithm
	for item := range strings.SplitSeq(text, ",") {
		base, more, _ := strings.Cut(strings.TrimSpace(item), "/") // RS256-2048/-3072/-4096
		listed = append(listed, holdfast.Algorithm(base))
		for suffix := range strings.SplitSeq(more, "/") {
			if suffix != "" {
				listed = append(listed, holdfast.Algorithm(strings.TrimSuffix(base, "-2048")+suffix))
			}
		}
	}
	if !slices.Equal(listed, holdfast.Algorithms()) {
		t.Errorf("docs/cli.md lists %v, the code %v", listed, holdfast.Algorithms())
	}
}
