package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"holdfast"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// The load under which the daemon's memory is read, and the keys it starts with.
const (
	processKeys    = 10
	processCallers = 64
)

// process measures the daemon itself: its size, how long it takes to listen on a token of ten keys, and its memory after
// load.
func (l *lab) process(ctx context.Context) (err error) {
	if !l.report.wants("daemon", "rss_mib", "rss_peak_mib", "start_ms", "binary_mb") {
		return nil
	}
	l.say("the daemon's start and memory")
	info, err := os.Stat(l.daemon)
	if err != nil {
		return err
	}
	token, err := l.token("ten")
	if err != nil {
		return err
	}
	d, cfg, err := l.start(ctx, "process", daemon.Backend{Name: "hsm", Token: token})
	if err != nil {
		return err
	}
	for i := range processKeys {
		if _, err := newKey(ctx, d.Client, "hsm", fmt.Sprintf("key %d", i), holdfast.ES256); err != nil {
			return errors.Join(err, d.Kill())
		}
	}
	if err := stop(ctx, d); err != nil {
		return err
	}
	start, d, err := l.restart(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(ctx, d)) }()
	memory, err := l.load(ctx, d)
	if err != nil {
		return err
	}
	verdict := l.report.add("daemon.rss_mib", mebibytes(memory.Resident), "MiB", lower)
	l.report.line("daemon, resident after load", "MiB", "", "", whole(mebibytes(memory.Resident)), "", "", verdict)
	verdict = l.report.add("daemon.rss_peak_mib", mebibytes(memory.Peak), "MiB", lower)
	l.report.line("daemon, resident at most", "MiB", "", "", whole(mebibytes(memory.Peak)), "", "", verdict)
	verdict = l.report.add("daemon.start_ms", start, "ms", lower)
	l.report.line(fmt.Sprintf("daemon, start with %d keys", processKeys), "ms", "", "", whole(start), "", "", verdict)
	size := float64(info.Size()) / 1e6
	verdict = l.report.add("daemon.binary_mb", size, "MB", lower)
	l.report.line("daemon, binary", "MB", "", "", fmt.Sprintf("%.1f", size), "", "", verdict)
	return nil
}

// restart starts a daemon once per round and stops it again, except the last, and returns the median time from its
// launch to its first answer, in milliseconds.
func (l *lab) restart(ctx context.Context, cfg daemon.Config) (float64, *daemon.Daemon, error) {
	var times []float64
	for {
		d, took, err := daemon.Start(ctx, cfg)
		if err != nil {
			return 0, nil, err
		}
		if times = append(times, milliseconds(took)); len(times) == l.rounds {
			return median(times), d, nil
		}
		if err := stop(ctx, d); err != nil {
			return 0, nil, err
		}
	}
}

// load signs with every key and then with many callers at once, and returns the daemon's memory afterwards.
func (l *lab) load(ctx context.Context, d *daemon.Daemon) (daemon.Memory, error) {
	b, err := d.Client.Backend(ctx, "hsm", nil)
	if err != nil {
		return daemon.Memory{}, err
	}
	for key, err := range b.Keys(ctx) {
		if err != nil {
			return daemon.Memory{}, err
		}
		if _, err := signOperation(key).measure(ctx, processCallers, l.window/2); err != nil {
			return daemon.Memory{}, err
		}
	}
	return d.Memory()
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
