package arch

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "holdfast"

// allowed says for each package which of our packages it may import; "" is the root package. A new package needs a line
// here. What only tests import is in allowedInTests.
var allowed = map[string][]string{
	"": {},

	"hsm":               {""},
	"tpm":               {"", "tpm/attestation"},
	"tpm/attestation":   {""},
	"token":             {"", "token/attestation"},
	"token/attestation": {""},

	"custody/store":    {""},
	"custody/evidence": {"", "tpm/attestation", "token/attestation", "internal/pubkey", "internal/strictjson"},
	"custody": {"", "custody/store", "custody/evidence", "internal/pubkey",
		"did", "did/key", "did/jwk", "did/webvh"},

	"did":               {"", "internal/pubkey", "internal/strictjson"},
	"did/key":           {"", "did", "internal/pubkey"},
	"did/jwk":           {"", "did", "internal/pubkey"},
	"did/dataintegrity": {"", "did", "did/key", "internal/pubkey", "internal/strictjson"},
	"did/webvh":         {"", "did", "did/key", "did/dataintegrity", "internal/pubkey", "internal/strictjson"},
	"did/fetch":         {"", "did"},

	"api":            {"", "api/holdfastpb", "custody", "custody/evidence", "did", "internal/pubkey"},
	"api/holdfastpb": {},
	"api/client":     {"", "api", "api/holdfastpb", "internal/pubkey"},

	"cmd/internal/config":   {""},
	"cmd/internal/backends": {"", "cmd/internal/config", "custody", "custody/store", "hsm", "tpm", "token"},
	"cmd/holdfastd":         {"cmd/internal/daemon"},
	"cmd/internal/daemon": {"", "api", "cmd/internal/backends", "cmd/internal/config", "custody", "custody/store",
		"did", "did/fetch", "did/key", "did/jwk", "did/webvh", "internal/version"},
	"cmd/holdfast": {"", "api", "api/client", "api/holdfastpb", "cmd/internal/config", "custody", "custody/evidence",
		"internal/pubkey", "internal/version"},

	"internal/keytest":    {""},
	"internal/softkey":    {""},
	"internal/pubkey":     {"", "internal/strictjson"},
	"internal/strictjson": {""},
	"internal/vectors":    {},
	"internal/version":    {},
	"internal/arch":       {},

	"softhsm-test":      {"softhsm-test/vpiv"},
	"softhsm-test/vpiv": {},
	"softhsm-test/lab":  {"softhsm-test", "softhsm-test/vpiv"},
}

// testTools may be imported by tests and by the programs below softhsm-test/cmd, never by what is released.
var testTools = []string{"internal/keytest", "internal/softkey", "internal/vectors", "softhsm-test", "softhsm-test/vpiv", "softhsm-test/lab"}

func TestImports(t *testing.T) {
	root := moduleRoot(t)
	for _, dir := range packageDirs(t, root) {
		name := filepath.ToSlash(dir)
		if name == "." {
			name = ""
		}
		pkg, err := build.Default.ImportDir(filepath.Join(root, dir), 0)
		if err != nil {
			if _, none := err.(*build.NoGoError); none {
				continue
			}
			t.Errorf("%s: %v", dir, err)
			continue
		}
		may, known := allowed[name]
		program := strings.HasPrefix(name, "softhsm-test/cmd/") || strings.HasPrefix(name, "internal/cmd/")
		if !known && !program {
			t.Errorf("package %s has no line in the table of allowed imports", name)
			continue
		}
		for _, imported := range ours(pkg.Imports) {
			if !program && !slices.Contains(may, imported) {
				t.Errorf("%s imports %s, which the architecture does not allow", display(name), display(imported))
			}
			if !program && slices.Contains(testTools, imported) && !slices.Contains(testTools, name) {
				t.Errorf("%s imports %s, which is for tests only", display(name), imported)
			}
		}
		if name == "" {
			standardOnly(t, pkg.Imports)
		}
	}
}

// standardOnly holds the root package to the standard library.
func standardOnly(t *testing.T, imports []string) {
	for _, path := range imports {
		if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
			t.Errorf("the root package imports %s; it has the standard library only", path)
		}
	}
}

func TestTableHasNoDeadLines(t *testing.T) {
	root := moduleRoot(t)
	for name := range allowed {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
			t.Errorf("the table has a line for %s, which does not exist", display(name))
		}
	}
}

func display(name string) string {
	if name == "" {
		return "the root package"
	}
	return name
}

func ours(imports []string) []string {
	var list []string
	for _, path := range imports {
		if path == module {
			list = append(list, "")
		} else if rest, ok := strings.CutPrefix(path, module+"/"); ok {
			list = append(list, rest)
		}
	}
	return list
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func packageDirs(t *testing.T, root string) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		switch name := d.Name(); {
		case path != root && strings.HasPrefix(name, "."), name == "testdata", name == "build", name == "tools":
			return filepath.SkipDir
		}
		rel, err := filepath.Rel(root, path)
		dirs = append(dirs, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}
