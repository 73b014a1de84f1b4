package daemon

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/cmd/internal/config"
)

// TestSocketOfABusyDaemonIsLeftAlone starts over a socket whose owner is too busy to accept anybody.
func TestSocketOfABusyDaemonIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for { // until the backlog is full
		conn, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	if l, err := listenSocket(config.Socket{Path: path}); err == nil {
		_ = l.Close()
		t.Error("took the socket of a daemon that is busy")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
	if err := unix.Close(fd); err != nil { // as after kill -9
		t.Fatal(err)
	}
	l, err := listenSocket(config.Socket{Path: path})
	if err != nil {
		t.Fatalf("over a socket that a killed daemon left behind: %v", err)
	}
	defer l.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
