package softhsmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The vpcd driver's name and first port. It always listens on all addresses, hence the network namespace.
const (
	readerName = "Virtual PCD"
	vpcdPort   = 0x8C7B
)

// vpcdDrivers lists where distributions put the vpcd driver.
var vpcdDrivers = [...]string{
	"/usr/lib/pcsc/drivers/serial/libifdvpcd.so",
	"/usr/lib64/pcsc/drivers/serial/libifdvpcd.so",
	"/usr/local/lib/pcsc/drivers/serial/libifdvpcd.so",
}

// pcscdScript runs in the new namespaces. A fresh /run hides the pid file of the machine's own pcscd; descriptor 3 is the
// socket, given as systemd gives it, so that clients can connect before the daemon is up; descriptor 4 is the folder.
const pcscdScript = `mount -t tmpfs none /run && mkdir /run/pcscd &&
LISTEN_FDS=1 LISTEN_PID=$$ PCSCLITE_HP_DROPDIR=/proc/self/fd/4/none exec "$@"`

// pcscdScriptUser is the same without root's rights: nobody can bring the loopback interface up later.
const pcscdScriptUser = "ip link set lo up && " + pcscdScript

// pcscd is the daemon, a foreground child.
type pcscd struct {
	socket string
	log    *tail
	cmd    *exec.Cmd
	user   bool          // it lives in a user namespace
	done   chan struct{} // closed when it has ended
}

// startPCSCD starts the daemon, in a user namespace or with root's rights. Clients may connect when it returns.
func startPCSCD(dir string, user bool) (*pcscd, error) {
	binary, err := findPCSCD()
	if err != nil {
		return nil, err
	}
	if err := writeReaderConfig(dir); err != nil {
		return nil, err
	}
	d := &pcscd{
		socket: filepath.Join(dir, "pcscd.comm"),
		log:    new(tail),
		user:   user,
		done:   make(chan struct{}),
	}
	// A socket left by a daemon that was killed would be in the way.
	if err := os.Remove(d.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = listener.Close() }() // the child has its own copy; when it dies, clients must notice
	listener.SetUnlinkOnClose(false)
	socket, err := listener.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = socket.Close() }()
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	d.cmd = d.command(binary, socket, folder)
	return d, d.start()
}

// findPCSCD returns the command line of a daemon that takes its socket from outside and asks no polkit for permission.
func findPCSCD() ([]string, error) {
	path, err := exec.LookPath("pcscd")
	if err != nil {
		path = "/usr/sbin/pcscd" // not in everybody's PATH
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: install the package pcscd", err)
	}
	if !bytes.Contains(version, []byte("systemd")) {
		return nil, errors.New("this pcscd was built without systemd's socket activation, which the private reader needs")
	}
	line := []string{path, "--foreground", "--info", "--config", "/proc/self/fd/4/readers"}
	help, err := exec.Command(path, "--help").Output()
	if err == nil && bytes.Contains(help, []byte("--disable-polkit")) {
		line = append(line, "--disable-polkit")
	}
	return line, nil
}

// writeReaderConfig writes the folder of reader configurations, and an empty one for USB drivers: a private daemon must
// not take real readers from the machine's own.
func writeReaderConfig(dir string) error {
	driver := ""
	for _, path := range vpcdDrivers {
		if _, err := os.Stat(path); err == nil {
			driver = path
			break
		}
	}
	if driver == "" {
		return errors.New("libifdvpcd.so is in none of the usual places: install the package vsmartcard-vpcd")
	}
	for _, name := range []string{"readers", "none"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	// /dev/null and the port make the driver listen; were it to dial, a card that goes away would crash pcscd.
	text := fmt.Sprintf("FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n",
		readerName, vpcdPort, driver, vpcdPort)
	return os.WriteFile(filepath.Join(dir, "readers", "vpcd"), []byte(text), 0o600)
}

func (d *pcscd) command(line []string, socket, folder *os.File) *exec.Cmd {
	script := pcscdScript
	// A process group of its own: Ctrl-C in a terminal is for us to act on, not for the daemon.
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if d.user {
		script = pcscdScriptUser
		attr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	} else {
		attr.Unshareflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, line...)...)
	cmd.SysProcAttr = attr
	cmd.ExtraFiles = []*os.File{socket, folder}
	cmd.Stdout, cmd.Stderr = d.log, d.log
	return cmd
}

// start runs the child from a thread that lives as long as it: the kernel sends Pdeathsig when the thread that started a
// child ends, not when the process does.
func (d *pcscd) start() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(d.done)
		err := d.cmd.Start()
		started <- err
		if err == nil {
			_ = d.cmd.Wait() // how it ended is in the log
		}
	}()
	return <-started
}

func (d *pcscd) stop() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.done
	if err := os.Remove(d.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// dial connects to a port in the daemon's network namespace.
func (d *pcscd) dial(ctx context.Context, port int) (net.Conn, error) {
	if d.user {
		return d.dialHelper(ctx, port)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	out := make(chan result, 1)
	go func() {
		// Never unlocked: the runtime ends a thread that is in a foreign namespace instead of using it again.
		runtime.LockOSThread()
		conn, err := dialInNamespace(d.cmd.Process.Pid, port)
		out <- result{conn, err}
	}()
	r := <-out
	return r.conn, r.err
}

// dialInNamespace moves the calling thread into the process' network namespace and connects.
func dialInNamespace(pid, port int) (net.Conn, error) {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer func() { _ = namespace.Close() }()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "vpcd")
	defer func() { _ = file.Close() }() // FileConn makes a copy
	if err := raiseLoopback(fd); err != nil {
		return nil, fmt.Errorf("bring loopback up: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, fmt.Errorf("connect to the vpcd driver: %w", err)
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("not a TCP connection: %T", conn), conn.Close())
	}
	return promptConn{tcp}, nil
}

// promptConn acknowledges what it receives at once. The driver sends a message in two writes, and its kernel holds the
// second back until the first is acknowledged: 44 ms for every command unless that is done at once. The kernel forgets
// the setting, so it is set before every read.
type promptConn struct{ *net.TCPConn }

// Read reads as the connection below does.
func (c promptConn) Read(p []byte) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	// A failure costs time and nothing else.
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	return c.TCPConn.Read(p)
}

// raiseLoopback brings the namespace's loopback interface up; a new one is down.
func raiseLoopback(fd int) error {
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// dialHelper connects where this process may not enter the namespace: only a new process may enter a user namespace, and
// a shell can connect by itself.
func (d *pcscd) dialHelper(_ context.Context, port int) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	relay := fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d || exit; cat <&3 & cat >&3; kill $!", port)
	cmd := exec.Command("nsenter", "--target", fmt.Sprint(d.cmd.Process.Pid), "--user", "--net", "--preserve-credentials",
		"bash", "-c", relay)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, d.log
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for Pdeathsig, as in start
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start nsenter (package util-linux): %w", err)
	}
	return ours, nil
}

// socketPair returns a connection and the file at its other end.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "card"), os.NewFile(uintptr(fds[1]), "driver")
	defer func() { _ = ours.Close() }() // FileConn makes a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// tailLen is how much of a child's output is kept.
const tailLen = 8 << 10

// tail is a writer that keeps the last of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte // guarded by mu
}

var _ io.Writer = (*tail)(nil)

// Write keeps the end of p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if n := len(t.kept) - tailLen; n > 0 {
		t.kept = append([]byte(nil), t.kept[n:]...)
	}
	return len(p), nil
}

func (t *tail) note(line string) { _, _ = fmt.Fprintln(t, line) }

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
