package client_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"holdfast"
	"holdfast/api"
	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
	"holdfast/custody"
	"holdfast/custody/store"
	"holdfast/did"
	"holdfast/internal/keytest"
	"holdfast/internal/softkey"
)

// serve answers for a software device on a Unix socket in dir, as holdfastd does, until stop is called.
func serve(
	ctx context.Context, dir string, device softkey.Config, log *zap.Logger,
) (path string, stop func() error, err error) {
	st, err := store.Open(ctx, filepath.Join(dir, "state"))
	if err != nil {
		return "", nil, err
	}
	service, err := custody.New(ctx, custody.Config{
		Store: st,
		Backends: []custody.BackendConfig{{
			Name: "soft", Kind: "softkey", VerifyAfterSign: true,
			Open: func(ctx context.Context) (holdfast.Backend, error) { return softkey.Open(ctx, device) },
		}},
		Logger: log,
	})
	if err != nil {
		return "", nil, errors.Join(err, st.Close())
	}
	server, err := api.New(api.Config{Custody: service, Resolver: did.Methods{}, Logger: log, Version: "test"})
	if err != nil {
		return "", nil, errors.Join(err, service.Close(), st.Close())
	}
	path = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", nil, errors.Join(err, service.Close(), st.Close())
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	return path, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(server.Shutdown(ctx), <-served, service.Close(), st.Close())
	}, nil
}

// daemon serves a software device for one test and returns the socket's path.
func daemon(t *testing.T, device softkey.Config) string {
	t.Helper()
	path, stop, err := serve(t.Context(), t.TempDir(), device, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return path
}

func connect(t *testing.T, path string) *client.Client {
	t.Helper()
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // may be closed by the test
	return c
}

func TestConformance(t *testing.T) {
	path := daemon(t, softkey.Config{PIN: "1234", TryPIN: "1234"})
	keytest.Run(t, keytest.Config{
		Name: "softkey through the daemon",
		Open: func(t *testing.T) holdfast.Backend {
			b, err := connect(t, path).Backend(t.Context(), "soft", nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Resident: holdfast.Algorithms(),
		Wrapped:  holdfast.Algorithms(),
		Needs:    []keytest.Interface{keytest.Destroyer, keytest.Sealer, keytest.Unlocker, keytest.Prober},
	})
}

// TestErrorsCrossTheWire checks that every code comes out as it went in, with ref and tries.
func TestErrorsCrossTheWire(t *testing.T) {
	var fault error
	path := daemon(t, softkey.Config{Fault: func(op string) error {
		if op == "sign" {
			return fault
		}
		return nil
	}})
	c := connect(t, path)
	create := &pb.CreateKeyRequest{Name: "k", Backend: "soft", Algorithm: "EdDSA", Purpose: "assertion"}
	if _, err := c.CreateKey(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	for code := holdfast.ErrInternal; code <= holdfast.ErrIntegrity; code++ {
		fault = &holdfast.Error{Op: "sign", Ref: "soft:1", Code: code, Retries: 2, Err: errors.New("the cause")}
		_, err := c.Sign(t.Context(), &pb.SignRequest{Name: "k", Digest: []byte("x")})
		if !errors.Is(err, code) {
			t.Errorf("%v came out as %v", code, err)
		}
		e, _ := errors.AsType[*holdfast.Error](err)
		if code == holdfast.ErrAuth && e.Retries != 2 {
			t.Errorf("the tries left came out as %d", e.Retries)
		}
		if code == holdfast.ErrInternal && (err == nil || errors.Unwrap(err).Error() == "the cause") {
			t.Errorf("the cause of an internal error was told: %v", err)
		}
	}
	fault = context.DeadlineExceeded
	_, err := c.Sign(t.Context(), &pb.SignRequest{Name: "k", Digest: []byte("x")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline came out as %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	c := connect(t, filepath.Join(t.TempDir(), "none"))
	_, err := c.GetStatus(t.Context(), &pb.GetStatusRequest{})
	if !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
