package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteOutput(t *testing.T) {
	c := &cli{}
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte("an older and longer one"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.writeOutput(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || string(data) != "new" {
		t.Errorf("got %q, %v", data, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode(); mode != 0o600 {
		t.Errorf("the mode of the file that was there stayed: %v", mode)
	}
	if err := c.writeOutput(filepath.Join(dir, "none", "file"), nil, 0o600); err == nil {
		t.Error("wrote into a folder that is not there")
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("more was left behind than the file: %v, %v", files, err)
	}
}

// TestWriteOutputToPipe stands for /dev/null too: a file must not take the place of what is no file.
func TestWriteOutputToPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // both ends: neither waits for the other
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := (&cli{}).writeOutput(path, []byte("through"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Type() != fs.ModeNamedPipe {
		t.Fatalf("the pipe became %v", info.Mode())
	}
	got := make([]byte, 16)
	n, err := pipe.Read(got)
	if err != nil || string(got[:n]) != "through" {
		t.Errorf("got %q, %v", got[:n], err)
	}
}
