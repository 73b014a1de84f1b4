// Package vectors finds the published test vectors, for tests. They keep their own licences and are not part of the
// repository: they lie in ../shared/vectors beside it, or where the environment variable HOLDFAST_VECTORS says.
package vectors

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Dir returns the folder of the vectors. Where there is none it says so in the test's log and returns false, unless
// HOLDFAST_REQUIRE lists "vectors": then the test fails. The facts a vector teaches are restated in tests that always
// run.
func Dir(tb testing.TB) (dir string, ok bool) {
	tb.Helper()
	dir = os.Getenv("HOLDFAST_VECTORS")
	if dir == "" {
		dir = filepath.Join(root(tb), "..", "shared", "vectors")
	}
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return dir, true
	}
	for required := range strings.SplitSeq(os.Getenv("HOLDFAST_REQUIRE"), ",") {
		if strings.TrimSpace(required) == "vectors" {
			tb.Fatalf("no test vectors in %s, and HOLDFAST_REQUIRE asks for them: set HOLDFAST_VECTORS", dir)
		}
	}
	tb.Logf("NOT RUN: there are no published test vectors in %s; set HOLDFAST_VECTORS to run this test on them", dir)
	return "", false
}

// Read returns the file at path (with slashes) below dir, which comes from [Dir].
func Read(tb testing.TB, dir, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// root returns the module's folder: tests run in the folder of their package.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for parent := filepath.Dir(dir); dir != parent; dir, parent = parent, filepath.Dir(parent) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	tb.Fatal("there is no go.mod above the working directory")
	return ""
}
