// Command chaos kills the daemon at random moments while callers create, use and destroy keys, starts it again on the
// same folder, and checks what it promised: whatever it acknowledged is so, nothing is half there, and its records and
// what is on the devices are the same keys. The devices are read without the daemon's code.
//
// It ends with exit code 1 at the first thing that is not as promised, and then leaves the daemon's folder for the one
// who looks for the cause.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
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

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	kills := flags.Int("kills", 200, "how `often` to kill the daemon")
	seed := flags.Uint64("seed", rand.Uint64(), "what the random moments are made of; the same `number` makes the same choices")
	binary := flags.String("daemon", "build/bin/holdfastd", "`path` of the daemon")
	card := flags.Bool("card", true, "torment a virtual PIV card too, besides SoftHSM2 and a TPM; needs pcscd and root")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if flags.NArg() > 0 || *kills < 1 {
		fmt.Fprintln(stderr, "chaos: it takes no arguments and at least one kill")
		return exitUsage
	}
	fmt.Fprintf(stdout, "seed %d\n", *seed)
	dir, err := os.MkdirTemp("", "hfchaos") // short: there will be sockets in it
	if err != nil {
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return exitFailed
	}
	if err := torment(ctx, dir, *binary, *card, *kills, *seed, stdout); err != nil {
		fmt.Fprintf(stderr, "chaos: %v\nrun it again with -seed %d; the daemon's folder is left in %s\n", err, *seed, dir)
		return exitFailed
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// torment brings the devices up, kills a daemon on them so many times, and prints what happened.
func torment(ctx context.Context, dir, binary string, card bool, kills int, seed uint64, w io.Writer) (err error) {
	devices, err := bringUp(ctx, dir, card)
	defer func() { err = errors.Join(err, devices.stop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	a := newArena(devices, dir, binary, seed)
	a.progress = w
	if err := a.fight(ctx, kills); err != nil {
		return err
	}
	return a.tally.print(w)
}
