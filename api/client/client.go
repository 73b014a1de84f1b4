// Package client talks to holdfastd over its Unix socket. [Client] has the daemon's services, with the daemon's errors
// turned back into *holdfast.Error; [Client.Backend] returns one of the daemon's backends as a holdfast.Backend, so that
// code written for a device works with a daemon in between.
package client

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"holdfast/api"
	pb "holdfast/api/holdfastpb"
)

// Client is a connection to a daemon. It connects at the first call and again when the daemon was restarted.
type Client struct {
	pb.KeyServiceClient
	pb.BackendServiceClient
	pb.DIDServiceClient
	pb.StatusServiceClient
	conn *grpc.ClientConn
}

// New returns a client of the daemon at the Unix socket path. Nothing is dialled yet.
func New(path string) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///holdfastd",
		// The socket's file mode and the kernel's peer credentials protect the connection.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}),
		grpc.WithUnaryInterceptor(translate),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(api.MaxRequest), grpc.MaxCallSendMsgSize(api.MaxRequest)),
	)
	if err != nil {
		return nil, err
	}
	return &Client{
		KeyServiceClient:     pb.NewKeyServiceClient(conn),
		BackendServiceClient: pb.NewBackendServiceClient(conn),
		DIDServiceClient:     pb.NewDIDServiceClient(conn),
		StatusServiceClient:  pb.NewStatusServiceClient(conn),
		conn:                 conn,
	}, nil
}

// translate turns statuses back into *holdfast.Error.
func translate(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return api.FromStatus(ctx, invoke(ctx, method, req, reply, cc, opts...))
}

// Close ends the connection. Calls fail afterwards with ErrUnavailable.
func (c *Client) Close() error { return c.conn.Close() }
