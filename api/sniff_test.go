package api

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
)

// crowded is a listener that has no file descriptor left for the first connections.
type crowded struct {
	net.Listener
	failures atomic.Int64
}

func (c *crowded) Accept() (net.Conn, error) {
	if c.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return c.Listener.Accept()
}

// TestAcceptGoesOn sees to it that whoever uses up the file descriptors does not stop the daemon.
func TestAcceptGoesOn(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	full := &crowded{Listener: l}
	full.failures.Store(3)
	s := newSniffer(full)
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	caller, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if _, err := caller.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.http.Accept(); err != nil {
		t.Fatalf("after the shortage: %v", err)
	}
	s.close()
	if err := <-served; err != nil {
		t.Fatalf("after close: %v", err)
	}
	if _, err := s.grpc.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Accept after close: %v", err)
	}
}
