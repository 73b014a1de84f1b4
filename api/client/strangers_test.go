package client_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"holdfast/api"
	pb "holdfast/api/holdfastpb"
	"holdfast/internal/softkey"
)

// nobody is a user that no configuration allows.
const nobody = 65534

// dialAs connects to the socket as another user: the kernel notes the credentials of the thread that connects. The thread
// is not used again.
func dialAs(t *testing.T, uid int, path string) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan result)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			dialled <- result{nil, errno}
			return
		}
		conn, err := net.Dial("unix", path)
		dialled <- result{conn, err}
	}()
	r := <-dialled
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.conn.Close() }) // may be closed by the test
	return r.conn
}

// TestStrangersAreRefused calls both wires as a user who got at the socket and is not allowed.
func TestStrangersAreRefused(t *testing.T) {
	path := daemon(t, softkey.Config{})
	if os.Geteuid() != 0 {
		t.Log("not root: only root can connect as another user; the rule itself is tested in package api")
		return
	}
	for file, mode := range map[string]os.FileMode{path: 0o666, filepath.Dir(path): 0o755, filepath.Dir(filepath.Dir(path)): 0o755} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	conn := dialAs(t, nobody, path)
	if _, err := conn.Write([]byte("GET /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("HTTP answers a stranger with %s", resp.Status)
	}
	stranger := dialAs(t, nobody, path)
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return stranger, nil }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }() // it was dialled for this one call
	_, err = pb.NewKeyServiceClient(cc).ListKeys(t.Context(), &pb.ListKeysRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("gRPC answers a stranger with %v", err)
	}
	_, err = pb.NewBackendServiceClient(cc).Seal(t.Context(), &pb.SealRequest{Secret: make([]byte, api.MaxRequest+1)})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("gRPC reads a stranger's request before it refuses it: %v", err)
	}
}
