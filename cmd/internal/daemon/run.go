// Package daemon is holdfastd: it reads the configuration, opens the devices and serves local callers until it is told to
// stop.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/cmd/internal/config"
	"holdfast/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Run carries out the command line of holdfastd. It returns the exit code when ctx has ended and everything is closed.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("holdfastd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/holdfast/holdfastd.yaml", "configuration `file`")
	check := flags.Bool("check", false, "check the configuration and stop")
	printVersion := flags.Bool("version", false, "print the version and stop")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "holdfastd: unknown argument %q; run holdfastd -help\n", flags.Arg(0))
		return exitUsage
	}
	if *printVersion {
		fmt.Fprintln(stdout, "holdfastd", version.String())
		return exitOK
	}
	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintf(stderr, "holdfastd: %v\n", err)
		return exitFailed
	}
	if *check {
		fmt.Fprintf(stdout, "%s is valid\n", *file)
		return exitOK
	}
	if err := noDumps(); err != nil {
		fmt.Fprintf(stderr, "holdfastd: forbid core dumps: %v\n", err)
		return exitFailed
	}
	if err := serve(ctx, cfg, newLogger(cfg.Log, stderr)); err != nil {
		fmt.Fprintf(stderr, "holdfastd: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// noDumps keeps PINs and unsealed secrets out of core dumps and away from other processes of the same user
// (ptrace, /proc/PID/mem), and new files away from other users.
func noDumps() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
