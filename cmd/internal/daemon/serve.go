package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"holdfast/api"
	"holdfast/cmd/internal/backends"
	"holdfast/cmd/internal/config"
	"holdfast/custody"
	"holdfast/custody/store"
	"holdfast/internal/version"
)

// stopTimeout is how long calls in flight may take when the daemon stops.
const stopTimeout = 10 * time.Second

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg *config.Config, log *zap.Logger) (err error) {
	start := time.Now()
	st, err := store.Open(ctx, cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	resolver, err := newResolver(cfg.Resolver)
	if err != nil {
		return err
	}
	service, err := custody.New(ctx, custody.Config{
		Store:    st,
		Backends: backends.Wire(cfg, st),
		Logger:   log,
		Version:  version.String(),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()

	public, err := listenPublic(cfg.HTTP)
	if err != nil {
		return err
	}
	apiConfig := api.Config{
		Custody:  service,
		Resolver: resolver,
		Access:   api.Access{UIDs: cfg.Socket.AllowUIDs, GIDs: cfg.Socket.AllowGIDs},
		Logger:   log,
		Version:  version.String(),
	}
	if public != nil {
		apiConfig.PublicAddress = public.url
	}
	server, err := api.New(apiConfig)
	if err != nil {
		return err
	}
	local, err := listenSocket(cfg.Socket)
	if err != nil {
		return err
	}
	log.Info("listening", zap.String("socket", cfg.Socket.Path), zap.String("public", apiConfig.PublicAddress),
		zap.Int("backends", len(cfg.Backends)), zap.Duration("dur", time.Since(start)), zap.String("version", version.String()))
	notifyReady(log)
	return runServers(ctx, server, local, public, api.PublicHandler(service), log)
}

// runServers serves until ctx ends or a listener breaks, then stops in order: no new calls, then those in flight.
func runServers(
	ctx context.Context, server *api.Server, local net.Listener, public *publicListener,
	handler http.Handler, log *zap.Logger,
) error {
	web := &http.Server{
		Handler: handler, ErrorLog: zap.NewStdLog(log), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(local) })
	if public != nil {
		group.Go(func() error {
			if err := web.Serve(public); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		log.Info("stopping")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return errors.Join(server.Shutdown(ctx), web.Shutdown(ctx))
	})
	return group.Wait()
}

// listenSocket makes the Unix socket with its mode from the first moment, over one that a killed daemon left behind.
func listenSocket(cfg config.Socket) (net.Listener, error) {
	mode, err := cfg.FileMode()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if info, err := os.Lstat(cfg.Path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("socket: %s is there and is no socket; remove it or name another path", cfg.Path)
		}
		conn, err := net.Dial("unix", cfg.Path)
		if err == nil {
			_ = conn.Close() // only to see that somebody listens
			return nil, fmt.Errorf("socket: another daemon listens on %s", cfg.Path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // somebody may listen who is too busy to answer
			return nil, fmt.Errorf("socket: whether another daemon listens on %s cannot be told: %w", cfg.Path, err)
		}
		if err := os.Remove(cfg.Path); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	l, err := net.Listen("unix", cfg.Path) // 0700 by the umask
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(cfg.Path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// maxPublic is how many connections strangers may hold open at a time: the others are for the devices and the database.
const maxPublic = 256

// publicListener is the public listener and how it is reached.
type publicListener struct {
	net.Listener
	url string
}

func listenPublic(cfg *config.HTTP) (*publicListener, error) {
	if cfg == nil {
		return nil, nil
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	l = netutil.LimitListener(l, maxPublic)
	if cfg.Certificate == "" {
		return &publicListener{l, "http://" + l.Addr().String()}, nil
	}
	cert, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("http.certificate: %w", err), l.Close())
	}
	secure := tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"http/1.1"},
	})
	return &publicListener{secure, "https://" + l.Addr().String()}, nil
}

// notifyReady tells systemd, where it started the daemon (sd_notify), that callers are answered from now on.
func notifyReady(log *zap.Logger) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path)
	if err == nil {
		_, err = conn.Write([]byte("READY=1"))
		_ = conn.Close() // the datagram is sent
	}
	if err != nil {
		log.Warn("systemd was not told", zap.Error(err))
	}
}
