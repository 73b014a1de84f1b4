package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"holdfast"
	"holdfast/api"
	"holdfast/api/client"
	"holdfast/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is one run of the program.
type cli struct {
	socket string
	json   bool
	in     io.Reader
	out    io.Writer
	err    io.Writer
	client *client.Client // made by connect
}

// usageError is a command line that cannot be carried out as it stands.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{in: stdin, out: stdout, err: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if c.client != nil {
		_ = c.client.Close() // the answer is here already
	}
	if err == nil {
		return exitOK
	}
	c.report(stderr, err)
	if isUsage(err) {
		return exitUsage
	}
	return exitFailed
}

func isUsage(err error) bool {
	if _, ok := errors.AsType[usageError](err); ok {
		return true
	}
	// cobra has no type for these two.
	return strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag")
}

// report tells a person, or with --json a program, what went wrong and what to do next.
func (c *cli) report(w io.Writer, err error) {
	if c.json {
		report := map[string]any{"error": err.Error(), "code": api.Reason(holdfast.CodeOf(err))}
		if isUsage(err) {
			report["code"] = "USAGE"
		}
		if e, ok := errors.AsType[*holdfast.Error](err); ok && e.Retries != holdfast.RetriesUnknown {
			report["retries"] = e.Retries
		}
		_ = json.NewEncoder(w).Encode(report) // there is nobody to tell
		return
	}
	fmt.Fprintf(w, "holdfast: %s\n", visibleLines(err.Error()))
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(w, "  %s\n", hint)
	}
}

// hintFor says what to do next where the error's sentence does not.
func hintFor(err error) string {
	if isUsage(err) {
		return "run the command with --help for what it takes"
	}
	switch holdfast.CodeOf(err) {
	case holdfast.ErrUnavailable:
		return "run `holdfast doctor` to see what is missing"
	case holdfast.ErrAuth, holdfast.ErrLocked:
		return "check the PIN, then run `holdfast backend unlock NAME`; no PIN is tried before"
	case holdfast.ErrNotFound:
		return "`holdfast key list`, `holdfast backend list` and `holdfast did list` show what there is"
	case holdfast.ErrIntegrity:
		return "do not use the result; run `holdfast doctor` if it came from a device"
	default:
		return ""
	}
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Keys in HSMs, TPMs and PIV tokens, and the DIDs they control",
		Long: "holdfast makes keys inside cryptographic devices, signs with them there and makes DIDs of them,\n" +
			"through the daemon holdfastd. `evidence verify` and `key verify --public` work without a daemon.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.String(),
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&c.socket, "socket", "",
		"the daemon's Unix socket (default: HOLDFAST_SOCKET, $XDG_RUNTIME_DIR/holdfast/holdfastd.sock, /run/holdfast/holdfastd.sock)")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(c.statusCommand(), c.doctorCommand(), c.backendCommand(), c.keyCommand(), c.evidenceCommand(),
		c.didCommand())
	return root
}

// connect returns the client of the daemon.
func (c *cli) connect() (*client.Client, error) {
	if c.client == nil {
		made, err := client.New(c.socketPath())
		if err != nil {
			return nil, err
		}
		c.client = made
	}
	return c.client, nil
}

// call is the body of a command that talks to the daemon.
func (c *cli) call(
	do func(ctx context.Context, daemon *client.Client, args []string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		daemon, err := c.connect()
		if err != nil {
			return err
		}
		return do(cmd.Context(), daemon, args)
	}
}

// socketPath finds the socket: flag, environment, the user's daemon, the machine's.
func (c *cli) socketPath() string {
	if c.socket != "" {
		return c.socket
	}
	if path := os.Getenv("HOLDFAST_SOCKET"); path != "" {
		return path
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		path := filepath.Join(dir, "holdfast", "holdfastd.sock")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "/run/holdfast/holdfastd.sock"
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(subs...)
	return cmd
}

// args1 takes exactly one argument, called what in errors.
func args1(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usagef("%s is missing", what)
		case len(args) > 1:
			return usagef("%s is one argument, not %d; quote it if it has spaces", what, len(args))
		}
		return nil
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command or argument %q", args[0])
	}
	return nil
}
