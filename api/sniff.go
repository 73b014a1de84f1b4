package api

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// http2Preface starts every HTTP/2 connection (RFC 9113, section 3.4), hence every gRPC one.
const http2Preface = "PRI * HTTP/2.0"

// sniffTimeout bounds how long a connection may stay silent before it is closed: a local caller speaks at once.
const sniffTimeout = 10 * time.Second

// sniffer serves gRPC and HTTP/1.1 on one listener. grpc-go is three times faster on its own transport than through
// net/http, so it gets its own connections, told by their first bytes.
type sniffer struct {
	net.Listener
	grpc, http *branch
	closed     chan struct{}
	closeOnce  sync.Once
}

func newSniffer(l net.Listener) *sniffer {
	s := &sniffer{Listener: l, closed: make(chan struct{})}
	s.grpc, s.http = s.branch(), s.branch()
	return s
}

func (s *sniffer) branch() *branch {
	return &branch{sniffer: s, conns: make(chan net.Conn)}
}

// The pauses after an Accept that failed: the first, and the longest that doubling leads to.
const (
	firstAcceptPause = 5 * time.Millisecond
	maxAcceptPause   = time.Second
)

// serve accepts until the listener is closed. That nothing can be accepted for a while, mostly because all file
// descriptors are in use, must not stop the daemon: anybody who may connect could bring that about.
func (s *sniffer) serve() error {
	pause := firstAcceptPause
	for {
		conn, err := s.Accept()
		switch {
		case err == nil:
			pause = firstAcceptPause
			go s.sort(conn)
			continue
		case errors.Is(err, net.ErrClosed):
			s.close()
			return nil
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxAcceptPause)
		case <-s.closed:
			return nil
		}
	}
}

func (s *sniffer) close() {
	s.closeOnce.Do(func() { close(s.closed) })
	_ = s.Listener.Close()
}

// sort reads just enough of conn to know which server it belongs to.
func (s *sniffer) sort(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(sniffTimeout))
	var head [len(http2Preface)]byte
	n := 0
	for n < len(head) && bytes.HasPrefix([]byte(http2Preface), head[:n]) {
		m, err := conn.Read(head[n:])
		n += m
		if err != nil {
			_ = conn.Close()
			return
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	to := s.http
	if string(head[:n]) == http2Preface {
		to = s.grpc
	}
	select {
	case to.conns <- &sniffedConn{Conn: conn, head: head[:n]}:
	case <-s.closed:
		_ = conn.Close()
	}
}

// branch is the listener of one of the two servers.
type branch struct {
	*sniffer
	conns chan net.Conn
}

func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *branch) Close() error {
	b.close()
	return nil
}

// sniffedConn gives back first what was read to tell the protocol.
type sniffedConn struct {
	net.Conn
	head []byte
}

func (c *sniffedConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
