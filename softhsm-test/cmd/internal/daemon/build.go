package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds holdfastd from this module's source, as it is released, and returns its path in dir. The working
// directory has to be in the module.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "holdfastd")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "holdfast/cmd/holdfastd")
	cmd.Env = os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build holdfastd: %w: %s", err, out)
	}
	return path, nil
}
