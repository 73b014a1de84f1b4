package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one measured value, as the JSON file has it.
type figure struct {
	Name   string    `json:"name"`
	Value  float64   `json:"value"`
	Unit   string    `json:"unit"`
	Goal   *float64  `json:"goal"` // null where there is none
	Better direction `json:"better"`
}

// report collects figures and the lines of the table.
type report struct {
	only    *regexp.Regexp
	figures []figure
	lines   [][]string
	missed  int
}

func newReport(only *regexp.Regexp) *report { return &report{only: only} }

// wants reports whether any of the figures called prefix and one of suffixes is to be measured.
func (r *report) wants(prefix string, suffixes ...string) bool {
	if r.only.MatchString(prefix) {
		return true
	}
	for _, suffix := range suffixes {
		if r.only.MatchString(prefix + "." + suffix) {
			return true
		}
	}
	return false
}

// add takes a figure and returns what the table says of its goal.
func (r *report) add(name string, value float64, unit string, better direction) string {
	f := figure{Name: name, Value: value, Unit: unit, Better: better}
	g, ok := goals[name]
	if !ok {
		r.figures = append(r.figures, f)
		return "\t"
	}
	f.Goal, f.Better = &g.value, g.better
	r.figures = append(r.figures, f)
	bound, verdict := "≥", "ok"
	if g.better == lower {
		bound = "≤"
	}
	if !g.met(value) {
		verdict = "MISS"
		r.missed++
	}
	return fmt.Sprintf("%s %g\t%s", bound, g.value, verdict)
}

// line adds a line to the table: a name, a unit, the three values, the two figures made of them, and the goal as add
// returned it.
func (r *report) line(cells ...string) { r.lines = append(r.lines, cells) }

// print writes the table.
func (r *report) print(w io.Writer, machine string, took time.Duration) error {
	head := []string{"measured", "unit", "raw device", "verify off", "verify on", "off : raw", "on : raw", "goal\t"}
	lines := append([][]string{head}, r.lines...)
	width := 0
	for _, cells := range lines {
		width = max(width, len(cells[0]))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, cells := range lines {
		// The writer aligns every column to the right; names belong to the left.
		fmt.Fprintf(t, "%-*s\t%s\t\n", width, cells[0], strings.Join(cells[1:], "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n%d figures in %s, %d goals missed. "+
		"Medians of the rounds; a ratio is the median of the rounds' ratios.\n", machine, len(r.figures), took.Round(time.Second), r.missed)
	return err
}

// write writes the figures to a file.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r.figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
