package keytest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"holdfast"
)

// TableDir is the environment variable that names the folder in which every run leaves what it saw; unset, nothing is
// written. It is read by test binaries only.
const TableDir = "HOLDFAST_CONFORM_DIR"

// Row is what succeeded for one algorithm on one backend.
type Row struct {
	Backend    string             `json:"backend"`
	Algorithm  holdfast.Algorithm `json:"algorithm"`
	Operations []string           `json:"operations"`
}

type recorder struct {
	backend string
	mu      sync.Mutex
	seen    map[holdfast.Algorithm][]string // guarded by mu
}

func newRecorder(backend string) *recorder {
	return &recorder{backend: backend, seen: make(map[holdfast.Algorithm][]string)}
}

func (r *recorder) add(a holdfast.Algorithm, operation string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.seen[a], operation) {
		r.seen[a] = append(r.seen[a], operation)
	}
}

func (r *recorder) write() error {
	dir := os.Getenv(TableDir)
	if dir == "" {
		return nil
	}
	var rows []Row
	for _, a := range holdfast.Algorithms() {
		if ops := r.seen[a]; ops != nil {
			slices.Sort(ops)
			rows = append(rows, Row{r.backend, a, ops})
		}
	}
	out, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := strings.ReplaceAll(r.backend, " ", "-") + ".json"
	return os.WriteFile(filepath.Join(dir, name), append(out, '\n'), 0o644)
}

// throughDaemon is what the name of a backend ends in when it was tested with the daemon in between.
const throughDaemon = " through the daemon"

// testOnly is the backend that exists for tests, which documentation leaves out.
const testOnly = "softkey"

// Table returns the rows found in dir as a Markdown table: an algorithm a line, a device a column, and in each cell the
// operations that succeeded. What differs with the daemon in between is said in the cell.
func Table(dir string) (string, error) {
	cells, err := readCells(dir)
	if err != nil {
		return "", err
	}
	var devices []string
	for _, backend := range slices.Sorted(maps.Keys(cells)) {
		if !strings.HasSuffix(backend, throughDaemon) && backend != testOnly {
			devices = append(devices, backend)
		}
	}
	if len(devices) == 0 {
		return "", fmt.Errorf("no results in %s: run make conform", dir)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| algorithm | %s |\n|---|%s\n", strings.Join(devices, " | "), strings.Repeat("---|", len(devices)))
	for _, a := range holdfast.Algorithms() {
		fmt.Fprintf(&b, "| %s |", a)
		for _, device := range devices {
			text := cells[device][a]
			if with := cells[device+throughDaemon][a]; with != text {
				text += fmt.Sprintf(" (through the daemon: %s)", cmp.Or(with, "not at all"))
			}
			fmt.Fprintf(&b, " %s |", cmp.Or(text, "–"))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// readCells returns the text of each cell by backend and algorithm.
func readCells(dir string) (map[string]map[holdfast.Algorithm]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	cells := map[string]map[holdfast.Algorithm]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var rows []Row
		if err := json.Unmarshal(text, &rows); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, row := range rows {
			if cells[row.Backend] == nil {
				cells[row.Backend] = map[holdfast.Algorithm]string{}
			}
			cells[row.Backend][row.Algorithm] = cell(row.Operations)
		}
	}
	return cells, nil
}

// cell shortens a list of operations: "resident, wrapped: sign, attest".
func cell(ops []string) string {
	var where, what []string
	for _, op := range ops {
		switch {
		case strings.HasPrefix(op, "generate "):
			where = append(where, strings.TrimPrefix(op, "generate "))
		case op == "sign", op == "agree", op == "encrypt", op == "attest", op == "destroy":
			what = append(what, op)
		}
	}
	return strings.Join(where, " + ") + ": " + strings.Join(what, ", ")
}
