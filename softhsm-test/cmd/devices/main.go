// Command devices brings up three virtual devices and keeps them up until it is interrupted: a SoftHSM2 token, a TPM
// (swtpm) and a PIV card in a reader of a private PC/SC daemon. Into the folder it is given it writes holdfastd.yaml, a
// configuration of holdfastd for the three, their PINs (pins), and what their attestations verify against (trust). It
// prints "ready" when everything is there. A second start with the same folder brings the same devices back.
//
// The devices protect nothing: their PINs lie beside them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"holdfast/softhsm-test/lab"
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
	exitFailed = 1
	exitUsage  = 2
)

// run brings the devices up, waits for ctx to end and stops them.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("devices", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "`folder` for the devices and everything about them; its path must be short (sockets)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if *dir == "" || flags.NArg() > 0 {
		_, _ = fmt.Fprintln(stderr, "devices: say where: devices --dir FOLDER")
		return exitUsage
	}
	if err := serve(ctx, *dir, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "devices: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func serve(ctx context.Context, dir string, stdout io.Writer) error {
	d, err := lab.Start(ctx, dir)
	if err == nil {
		_, err = fmt.Fprintln(stdout, "ready")
	}
	if err == nil {
		<-ctx.Done()
	}
	// The devices are stopped because ctx has ended; stopping them has its own time.
	return errors.Join(err, d.Stop(context.WithoutCancel(ctx)))
}
