// Command holdfastd is the custody daemon: it opens the configured devices and answers local callers on a Unix socket.
// See docs/configuration.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"holdfast/cmd/internal/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := daemon.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
