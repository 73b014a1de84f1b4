// Command bench measures what the daemon adds to the devices below it: signatures per second and latency through the
// daemon's socket beside those of the same kind of device used directly, in the same run, in turns; the daemon's memory,
// start and size; and a hundred thousand wrapped keys on one token. See docs/benchmarks.md.
//
// It prints a table and writes the figures to a JSON file. The load comes from this process, on the same processors as
// the daemon.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // something could not be measured, or with -strict a goal was missed
	exitUsage  = 2
)

// options are what the command line says.
type options struct {
	daemon  string         // path of holdfastd
	out     string         // path of the JSON file
	only    *regexp.Regexp // which figures to measure
	rounds  int
	window  time.Duration // of one measurement
	wrapped int           // how many wrapped keys to make
	strict  bool
	profile string // where to write this process's CPU profile; empty for nowhere
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, code := parse(args, stderr)
	if o == nil {
		return code
	}
	stop, err := startProfile(o.profile)
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	missed, err := bench(ctx, o, stdout, stderr)
	if err := errors.Join(err, stop()); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	if missed > 0 && o.strict {
		return exitFailed
	}
	return exitOK
}

// parse reads the command line. It returns nil and an exit code where there is nothing to run.
func parse(args []string, stderr io.Writer) (*options, int) {
	o := new(options)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "measure only what matches this `regexp`: sign.ES256, softhsm2.c64, daemon, wrapped")
	seconds := flags.Float64("seconds", 1.5, "length of one measurement in `seconds`")
	short := flags.Bool("short", false, "a few minutes instead of ten: -seconds 0.5 -wrapped 2000 unless given")
	flags.StringVar(&o.daemon, "daemon", "build/bin/holdfastd", "`path` of the daemon to measure")
	flags.StringVar(&o.out, "out", "build/bench.json", "`file` for the figures")
	flags.IntVar(&o.rounds, "rounds", 5, "how often raw device and daemon take turns")
	flags.IntVar(&o.wrapped, "wrapped", 100_000, "how many wrapped keys to make on one token")
	flags.BoolVar(&o.strict, "strict", false, "fail when a goal is missed")
	flags.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the load generator to `file`")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, exitOK
		}
		return nil, exitUsage
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *short && !given["seconds"] {
		*seconds = 0.5
	}
	if *short && !given["wrapped"] {
		o.wrapped = 2000
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintf(stderr, "bench: -only: %v\n", err)
		return nil, exitUsage
	}
	if flags.NArg() > 0 || o.rounds < 1 || *seconds < 0.1 || o.wrapped < 100 {
		fmt.Fprintln(stderr, "bench: it takes no arguments, at least one round of 0.1 seconds, and at least 100 wrapped keys")
		return nil, exitUsage
	}
	o.window = time.Duration(*seconds * float64(time.Second))
	return o, exitOK
}

func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// bench runs all sections and returns how many goals were missed.
func bench(ctx context.Context, o *options, stdout, stderr io.Writer) (missed int, err error) {
	dir, err := os.MkdirTemp("", "hfbench") // short: there will be sockets in it
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := newReport(o.only)
	l := &lab{options: o, dir: dir, report: r, progress: stderr}
	start := time.Now()
	for _, section := range []func(context.Context) error{l.signing, l.process, l.wrappedKeys} {
		if err := section(ctx); err != nil {
			return 0, err
		}
	}
	if len(r.figures) == 0 {
		return 0, fmt.Errorf("no figure matches %q", o.only)
	}
	if err := r.print(stdout, machine(ctx), time.Since(start)); err != nil {
		return 0, err
	}
	return r.missed, r.write(o.out)
}
