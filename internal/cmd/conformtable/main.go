// Command conformtable prints the table of what the conformance suite saw and writes it between two marks in a file.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"holdfast/internal/keytest"
)

const (
	begin = "<!-- conformance table: begin, made by make conform -->"
	end   = "<!-- conformance table: end -->"
)

func main() {
	dir := flag.String("dir", "build/conform", "folder with the results")
	file := flag.String("file", "", "file with the marks")
	flag.Parse()
	if err := run(*dir, *file); err != nil {
		fmt.Fprintln(os.Stderr, "conformtable:", err)
		os.Exit(1)
	}
}

func run(dir, file string) error {
	table, err := keytest.Table(dir)
	if err != nil {
		return err
	}
	fmt.Print(table)
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, found := strings.Cut(string(text), begin)
	_, tail, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		return fmt.Errorf("%s has no marks %q and %q", file, begin, end)
	}
	return os.WriteFile(file, []byte(head+begin+"\n"+table+end+tail), 0o644)
}
