package keytest

import (
	"encoding/json"
	"fmt"
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

// Table returns the rows found in dir as a Markdown table: an algorithm a line, a backend a column, and in each cell
// the operations that succeeded.
func Table(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("no results in %s: run make conform", dir)
	}
	var backends []string
	cells := map[string]string{}
	for _, file := range files {
		var rows []Row
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if err := json.Unmarshal(text, &rows); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		for _, row := range rows {
			if !slices.Contains(backends, row.Backend) {
				backends = append(backends, row.Backend)
			}
			cells[row.Backend+"\x00"+string(row.Algorithm)] = cell(row.Operations)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| algorithm | %s |\n|---|%s\n", strings.Join(backends, " | "), strings.Repeat("---|", len(backends)))
	for _, a := range holdfast.Algorithms() {
		fmt.Fprintf(&b, "| %s |", a)
		for _, backend := range backends {
			text := cells[backend+"\x00"+string(a)]
			if text == "" {
				text = "–"
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
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
