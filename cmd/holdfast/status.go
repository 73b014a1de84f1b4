package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"holdfast"
	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
)

// statusTimeout bounds how long a daemon that has accepted the connection may take.
const statusTimeout = 15 * time.Second

func (c *cli) statusCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how the daemon and its devices are",
		Args:  noArgs,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, _ []string) error {
			timeout := statusTimeout
			if wait > 0 {
				timeout = wait
			}
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			status, err := daemon.GetStatus(ctx, &pb.GetStatusRequest{}, grpc.WaitForReady(wait > 0))
			if errors.Is(err, context.DeadlineExceeded) {
				return holdfast.Errorf(holdfast.ErrUnavailable, "", "the daemon did not answer on %s in time", c.socketPath())
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(status)
			}
			if err := c.fields(
				"daemon", fmt.Sprintf("holdfastd %s, process %d, up %s", status.GetVersion(), status.GetPid(),
					time.Since(status.GetStartTime().AsTime()).Round(time.Second)),
				"socket", c.socketPath(),
				"public", status.GetHttpAddress(),
				"keys", fmt.Sprint(status.GetKeyCount()),
				"DIDs", fmt.Sprint(status.GetDidCount()),
			); err != nil {
				return err
			}
			backends, err := daemon.ListBackends(ctx, &pb.ListBackendsRequest{})
			if err != nil {
				return err
			}
			if err := c.println(""); err != nil {
				return err
			}
			return c.printBackends(backends.GetBackends())
		}),
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for a daemon that is starting, as in 10s")
	return cmd
}
