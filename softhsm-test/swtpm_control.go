package softhsmtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// The commands of swtpm's control channel that are used here (swtpm_ioctl.8, tpm_ioctl.h).
const (
	controlCapability uint32 = 1 // CMD_GET_CAPABILITY: answers with 8 bytes of flags
	controlInit       uint32 = 2 // CMD_INIT: power off and on
	controlShutdown   uint32 = 3 // CMD_SHUTDOWN: end the process
)

// controlTimeout bounds one control command.
const controlTimeout = 10 * time.Second

// control sends one command to the control socket and checks the result.
func control(ctx context.Context, path string, command uint32) error {
	conn, err := dialSwtpm(ctx, path, controlTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := binary.BigEndian.AppendUint32(nil, command)
	answer := make([]byte, 4)
	switch command {
	case controlInit:
		request = binary.BigEndian.AppendUint32(request, 0) // keep the volatile state, of which there is none
	case controlCapability:
		answer = make([]byte, 8)
	}
	if _, err := conn.Write(request); err != nil {
		return fmt.Errorf("swtpm control command %d: %w", command, err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("swtpm control command %d: %w", command, err)
	}
	if result := binary.BigEndian.Uint32(answer); command != controlCapability && result != 0 {
		return fmt.Errorf("swtpm control command %d: result %#x", command, result)
	}
	return nil
}

// shutdownTimeout bounds TPM2_Shutdown: swtpm does not serve us while another client is connected.
const shutdownTimeout = time.Second

// shutdown sends TPM2_Shutdown(CLEAR), without which the next start counts as a possible attack on a DA-protected object
// that was used. A client that is connected still has to do that itself, so a timeout is no error.
func (t *TPM) shutdown(ctx context.Context) error {
	conn, err := dialSwtpm(ctx, t.SocketPath, shutdownTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(transport.FromReadWriter(conn))
	if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		return nil
	}
	return err
}

func dialSwtpm(ctx context.Context, path string, timeout time.Duration) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
