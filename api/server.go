// Package api is the daemon's face: one protobuf schema (package holdfast.v1), served as gRPC and as JSON over HTTP on
// the same Unix socket. The callers are local processes that the kernel vouches for (SO_PEERCRED); nobody is anonymous.
//
// Handlers translate between the wire and package custody, which does the work; the one table from error codes to both
// wires is here too.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	"holdfast"
	"holdfast/api/holdfastpb"
	"holdfast/custody"
	"holdfast/did"
)

// MaxRequest is the longest request, in bytes: a full batch of digests or a message of the longest length, with room for
// base64.
const MaxRequest = 4 << 20

// streamWorkers is how many goroutines wait for calls, each with a stack that has grown already. More calls at once get
// goroutines of their own.
const streamWorkers = 64

// Config is what a Server needs. All fields but Access and PublicAddress are required.
type Config struct {
	Custody  *custody.Service
	Resolver did.Resolver
	Access   Access
	Logger   *zap.Logger
	Version  string

	// PublicAddress is where the public listener serves DIDs, told to callers in GetStatus; empty for nowhere.
	PublicAddress string
}

// Server serves both wires on one listener.
type Server struct {
	cfg    Config
	start  time.Time
	ids    requestIDs
	grpc   *grpc.Server
	http   *http.Server
	health *health.Server
}

// New returns a Server that is not listening yet.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, start: time.Now(), ids: newRequestIDs(), health: health.NewServer()}
	s.grpc = grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.InTapHandle(s.turnAway),
		grpc.UnaryInterceptor(s.intercept),
		grpc.StreamInterceptor(s.interceptStream),
		grpc.MaxRecvMsgSize(MaxRequest),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Hour}),
	)
	h := &handlers{server: s}
	holdfastpb.RegisterKeyServiceServer(s.grpc, h)
	holdfastpb.RegisterBackendServiceServer(s.grpc, h)
	holdfastpb.RegisterDIDServiceServer(s.grpc, h)
	holdfastpb.RegisterStatusServiceServer(s.grpc, h)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	mux, err := s.gateway(h)
	if err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if caller, err := callerOf(conn); err == nil {
				return withCaller(ctx, caller)
			}
			return ctx // nobody; refused by authorize
		},
		ErrorLog: zap.NewStdLog(cfg.Logger),
	}
	return s, nil
}

// Serve answers on l, a Unix socket, until Shutdown. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	sniff := newSniffer(l)
	var group errgroup.Group
	group.Go(sniff.serve)
	group.Go(func() error {
		// The two listeners are one: the HTTP server may have closed it before this one heard of Shutdown.
		if err := s.grpc.Serve(sniff.grpc); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		if err := s.http.Serve(sniff.http); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return group.Wait()
}

// Shutdown stops accepting, waits for calls in flight until ctx ends, and then cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	err := s.http.Shutdown(ctx)
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("stop with calls in flight: %w", err)
	}
	return nil
}

// turnAway refuses strangers before their request is read: its MaxRequest bytes, times as many calls as they like, are
// not for them to fill.
func (s *Server) turnAway(ctx context.Context, info *tap.Info) (context.Context, error) {
	caller, err := s.cfg.Access.authorize(ctx)
	if err != nil {
		s.cfg.Logger.Warn("caller refused", zap.String("op", info.FullMethodName), zap.Uint32("caller", caller.UID))
	}
	return ctx, err
}

// intercept names the caller, translates errors and logs what failed.
func (s *Server) intercept(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	caller, err := s.cfg.Access.authorize(ctx)
	if err != nil { // not without turnAway
		return nil, err
	}
	resp, err := s.guarded(ctx, req, handler)
	if err != nil {
		id := s.ids.next()
		s.logFailure(info.FullMethod, id, caller, err)
		return nil, toStatus(err, id)
	}
	return resp, nil
}

// guarded keeps a fault in one request from ending the daemon, and with it everybody's connections to the devices; net/http
// does the same for the other wire.
func (s *Server) guarded(ctx context.Context, req any, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.cfg.Logger.Error("panic in a request", zap.Stack("stack"))
			err = holdfast.Errorf(holdfast.ErrInternal, "", "a fault in the daemon: %v", r)
		}
	}()
	return handler(ctx, req)
}

// interceptStream guards the only streaming call there is, the health service's Watch.
func (s *Server) interceptStream(
	srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if _, err := s.cfg.Access.authorize(stream.Context()); err != nil {
		return err
	}
	return handler(srv, stream)
}

func (s *Server) gateway(h *handlers) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithErrorHandler(s.writeProblem),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
	)
	ctx := context.Background() // nothing is dialled: handlers are called in this process
	err := errors.Join(
		holdfastpb.RegisterKeyServiceHandlerServer(ctx, mux, h),
		holdfastpb.RegisterBackendServiceHandlerServer(ctx, mux, h),
		holdfastpb.RegisterDIDServiceHandlerServer(ctx, mux, h),
		holdfastpb.RegisterStatusServiceHandlerServer(ctx, mux, h),
	)
	if err != nil {
		return nil, err
	}
	root := http.NewServeMux()
	root.Handle("/v1/", s.guard(mux))
	root.HandleFunc("GET /openapi.json", serveOpenAPI)
	root.HandleFunc("GET /livez", live)
	root.Handle("GET /readyz", s.guard(http.HandlerFunc(s.ready))) // it names the backends
	return root, nil
}

// guard does for HTTP what intercept does for gRPC.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := s.cfg.Access.authorize(r.Context())
		if err != nil {
			s.cfg.Logger.Warn("caller refused",
				zap.String("op", r.Method+" "+r.URL.Path), zap.Uint32("caller", caller.UID))
			s.writeProblem(r.Context(), nil, nil, w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxRequest)
		next.ServeHTTP(w, r)
	})
}
