package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// printJSON prints a message of the daemon.
func (c *cli) printJSON(m proto.Message) error {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	var out bytes.Buffer // protojson varies its white space on purpose
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	return c.println(out.String())
}

// printAny prints a value of our own as JSON.
func (c *cli) printAny(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return c.println(string(text))
}

func (c *cli) println(s string) error {
	_, err := fmt.Fprintln(c.out, s)
	return err
}

func (c *cli) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.out, format, args...)
	return err
}

// visible returns s with everything escaped that a terminal would not show as itself. Texts of others, a bundle's and a
// device's, could else move the cursor and write lines that are not ours.
func visible(s string) string {
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

// visibleLines is visible for a text of several lines.
func visibleLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = visible(strings.ReplaceAll(lines[i], "\t", "  "))
	}
	return strings.Join(lines, "\n")
}

// table prints rows in columns; the first row is the heading.
func (c *cli) table(rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = visible(cell)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// fields prints names and values in two columns, leaving out empty values.
func (c *cli) fields(pairs ...string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s\t%s\n", pairs[i], visible(pairs[i+1])); err != nil {
			return err
		}
	}
	return w.Flush()
}

// maxInput is the longest file the program reads: more than any device or daemon takes.
const maxInput = 64 << 20

// readInput reads a file, or standard input for "-".
func (c *cli) readInput(path string) ([]byte, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxInput)
	}
	return data, nil
}

// writeOutput writes a file whole or not at all, or standard output for "-".
func (c *cli) writeOutput(path string, data []byte, mode os.FileMode) error {
	if path == "-" {
		_, err := c.out.Write(data)
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, data, mode) // /dev/null and pipes must not be replaced by a file
	}
	// A name of its own: neither the mode nor the content of a file that is there already counts.
	tmp := path + "." + rand.Text()[:8] + ".part"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		_ = os.Remove(tmp) // it may not be there; the first error tells more
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
