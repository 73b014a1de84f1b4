package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// lab holds what the sections need: options, a folder, the report, and where to say what is being done.
type lab struct {
	*options
	dir      string
	report   *report
	progress io.Writer
}

// sub returns a new folder in the lab's.
func (l *lab) sub(name string) (string, error) {
	dir := filepath.Join(l.dir, name)
	return dir, os.Mkdir(dir, 0o700)
}

// say tells the person who waits what is being measured.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.progress, format+"\n", args...)
}

// token makes a token in a folder of its own.
func (l *lab) token(name string) (*softhsmtest.Token, error) {
	dir, err := l.sub(name)
	if err != nil {
		return nil, err
	}
	return softhsmtest.NewToken(dir, name)
}

// start starts a daemon in a folder of its own.
func (l *lab) start(ctx context.Context, name string, backends ...daemon.Backend) (*daemon.Daemon, daemon.Config, error) {
	cfg := daemon.Config{Binary: l.daemon, Dir: filepath.Join(l.dir, name), Backends: backends}
	d, _, err := daemon.Start(ctx, cfg)
	if err != nil {
		return nil, cfg, fmt.Errorf("%w\n%s", err, tail(filepath.Join(cfg.Dir, "holdfastd.log")))
	}
	return d, cfg, nil
}

// stopTimeout is how long a daemon may take to stop in good order.
const stopTimeout = 20 * time.Second

func stop(ctx context.Context, d *daemon.Daemon) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		return fmt.Errorf("stop the daemon: %w\n%s", err, tail(d.Log))
	}
	return nil
}

// tail returns the end of a file, which will be gone when someone wants to read it.
func tail(path string) string {
	const size = 4096
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-size):])
}
