// Package daemon runs holdfastd as a child process, for the programs that measure and torment it.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"holdfast/api/client"
	"holdfast/api/holdfastpb"

	"google.golang.org/grpc"
)

// Config says which daemon to run. All fields are required but Env.
type Config struct {
	// Binary is the path of holdfastd.
	Binary string

	// Dir is a folder of the daemon's own, in which it keeps everything; its path must be short (sockets). A daemon that
	// is launched with the folder of an earlier one finds that one's state.
	Dir string

	Backends []Backend

	// Env is added to the daemon's environment: "NAME=value".
	Env []string
}

// Daemon is a running holdfastd. It dies with this process.
type Daemon struct {
	// Client is connected to the daemon at its first call.
	Client *client.Client

	// Log is the file that the daemon logs to. Daemons that use one folder one after another share it.
	Log string

	cmd      *exec.Cmd
	launched time.Time
	notices  *net.UnixConn
	done     chan struct{} // closed when the process has ended
	err      error         // what cmd.Wait returned; set before done is closed
}

// Start launches a daemon and waits until it answers.
func Start(ctx context.Context, cfg Config) (*Daemon, time.Duration, error) {
	d, err := Launch(cfg)
	if err != nil {
		return nil, 0, err
	}
	took, err := d.Ready(ctx)
	if err != nil {
		return nil, 0, errors.Join(err, d.Kill())
	}
	return d, took, nil
}

// Launch starts a daemon and does not wait for it.
func Launch(cfg Config) (*Daemon, error) {
	path, err := writeConfig(cfg)
	if err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(filepath.Join(cfg.Dir, "holdfastd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	c, err := client.New(socketPath(cfg.Dir))
	if err != nil {
		return nil, err
	}
	d := &Daemon{Client: c, Log: logFile.Name(), done: make(chan struct{})}
	notify := filepath.Join(cfg.Dir, "notify.sock")
	if err := os.Remove(notify); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, c.Close())
	}
	if d.notices, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	d.cmd = exec.Command(cfg.Binary, "--config", path)
	d.cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+notify), cfg.Env...)
	d.cmd.Stdout, d.cmd.Stderr = logFile, logFile
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the daemon: %w", err), d.notices.Close(), c.Close())
	}
	return d, nil
}

// start starts the child from a thread that lives as long as the child does: the kernel sends Pdeathsig when the thread
// that started a child ends.
func (d *Daemon) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		d.launched = time.Now()
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.err = d.cmd.Wait()
		}
		close(d.done)
		_ = d.notices.Close() // ends Ready, where it still waits
	}()
	return <-started
}

// readyTimeout bounds the wait for a daemon that neither answers nor ends.
const readyTimeout = time.Minute

// Ready waits until the daemon answers calls, and returns how long that took from its launch. It returns an error when
// the daemon ends instead.
func (d *Daemon) Ready(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = d.notices.SetReadDeadline(time.Now()) })
	defer stop()
	// The daemon tells as it tells systemd (sd_notify). Asking again and again would take time from it.
	notice := make([]byte, 256)
	if _, err := d.notices.Read(notice); err != nil {
		return 0, d.explain(ctx, err)
	}
	if _, err := d.Client.GetStatus(ctx, &holdfastpb.GetStatusRequest{}, grpc.WaitForReady(true)); err != nil {
		return 0, d.explain(ctx, err)
	}
	return time.Since(d.launched), nil
}

func (d *Daemon) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("the daemon does not answer: %w", ctx.Err())
	}
	select {
	case <-d.done:
		return fmt.Errorf("the daemon ended (%v) before it answered; its log is %s", d.err, d.Log)
	default:
		return fmt.Errorf("the daemon does not answer: %w", err)
	}
}

// Kill ends the daemon with SIGKILL, as a crash does, and waits for its end.
func (d *Daemon) Kill() error {
	err := d.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-d.done
	return errors.Join(err, d.Client.Close())
}

// Done is closed when the daemon has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Stop ends the daemon in good order, with SIGTERM, and returns an error when it does not stop or complains.
func (d *Daemon) Stop(ctx context.Context) error {
	err := errors.Join(d.cmd.Process.Signal(syscall.SIGTERM), d.Client.Close())
	select {
	case <-d.done:
		return errors.Join(err, d.err)
	case <-ctx.Done():
		return errors.Join(err, ctx.Err(), d.Kill())
	}
}
