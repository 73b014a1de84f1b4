package api

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Caller is who called: the process at the other end of the Unix socket, as the kernel says (SO_PEERCRED).
type Caller struct {
	credentials.CommonAuthInfo
	UID, GID uint32
	PID      int32
}

// AuthType names the authenticator.
func (Caller) AuthType() string { return "unix" }

// Access says which local users may call.
type Access struct {
	// UIDs and GIDs lists users and primary groups besides root and the daemon's own user.
	UIDs, GIDs []uint32
}

func (a Access) allows(c Caller) bool {
	return c.UID == 0 || c.UID == uint32(os.Geteuid()) || slices.Contains(a.UIDs, c.UID) || slices.Contains(a.GIDs, c.GID)
}

// callerOf asks the kernel who is at the other end of conn.
func callerOf(conn net.Conn) (Caller, error) {
	if s, ok := conn.(*sniffedConn); ok {
		conn = s.Conn
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return Caller{}, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Caller{}, err
	}
	if credErr != nil {
		return Caller{}, credErr
	}
	level := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return Caller{CommonAuthInfo: level, UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

// peerCredentials makes gRPC ask the kernel for the caller of each connection.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	caller, err := callerOf(conn)
	return conn, caller, err
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are the server's")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}
func (peerCredentials) Clone() credentials.TransportCredentials { return peerCredentials{} }
func (peerCredentials) OverrideServerName(string) error         { return nil }

type callerKey struct{}

// withCaller puts the caller of an HTTP connection into its context.
func withCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns who makes the call of ctx; ok is false when nobody was authenticated.
func CallerFrom(ctx context.Context) (Caller, bool) {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c, true
	}
	if p, ok := peer.FromContext(ctx); ok {
		c, ok := p.AuthInfo.(Caller)
		return c, ok
	}
	return Caller{}, false
}

// authorize refuses everyone access does not name.
func (a Access) authorize(ctx context.Context) (Caller, error) {
	c, ok := CallerFrom(ctx)
	if !ok {
		return c, status.Error(codes.Unauthenticated, "nobody is known to make this call")
	}
	if !a.allows(c) {
		return c, status.Errorf(codes.PermissionDenied,
			"user %d may not use this daemon; add the user to socket.allow_uids in its configuration", c.UID)
	}
	return c, nil
}
