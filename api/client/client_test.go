package client_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

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

// daemon serves a software device on a Unix socket, as holdfastd does, and returns the socket's path.
func daemon(t *testing.T, device softkey.Config) string {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	service, err := custody.New(t.Context(), custody.Config{
		Store: st,
		Backends: []custody.BackendConfig{{
			Name: "soft", Kind: "softkey", VerifyAfterSign: true,
			Open: func(ctx context.Context) (holdfast.Backend, error) { return softkey.Open(ctx, device) },
		}},
		Logger: zaptest.NewLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := api.New(api.Config{Custody: service, Resolver: did.Methods{}, Logger: zaptest.NewLogger(t), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-served, service.Close(), st.Close()); err != nil {
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
	if _, err := c.Sign(t.Context(), &pb.SignRequest{Name: "k", Digest: []byte("x")}); !errors.Is(err, context.DeadlineExceeded) {
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
