package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine says in one line what the figures were measured on.
func machine(ctx context.Context) string {
	return fmt.Sprintf("%d × %s, %s %s/%s, SoftHSM %s, %s", runtime.NumCPU(), processor(),
		runtime.Version(), runtime.GOOS, runtime.GOARCH,
		output(ctx, "softhsm2-util", "--version"), output(ctx, "swtpm", "--version"))
}

// processor returns the processor's name, as the kernel says.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// output returns the first line that a command prints, up to a comma.
func output(ctx context.Context, name string, args ...string) string {
	text, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return name + " of unknown version"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line, _, _ = strings.Cut(line, ",")
	return strings.TrimSpace(line)
}
