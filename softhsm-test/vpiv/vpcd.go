package vpiv

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// atr is the card's answer to reset: protocol T=1, which some hosts insist on, and as historical bytes the identifier of
// the PIV application (ISO/IEC 7816-4, section 12.1.1), by which hosts know a plain PIV card. The shortest one, 3B 80 80 01
// 01, is taken by OpenSC for that of a product without elliptic curves.
var atr = []byte{
	0x3B, 0x8B, 0x01, // direct convention, 11 historical bytes, T=1
	0x80, 0xF9, 0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00,
	0x48, // check byte
}

// The control messages of the vpcd protocol: one byte instead of a command APDU.
const (
	vpcdOff   = 0
	vpcdOn    = 1
	vpcdReset = 2
	vpcdATR   = 4
)

// Serve lets the card sit in the reader at the other end of conn until the reader closes it, ctx ends, or a fault pulls
// the card out; it returns nil then. It closes conn. The protocol is vpcd's: messages are a length of two bytes, big
// endian, and that many bytes; a message of one byte controls the power or asks for the ATR, a longer one is a command
// APDU.
func (c *Card) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	defer func() { _ = conn.Close() }()
	defer c.Reset()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	in := bufio.NewReader(conn)
	for {
		message, err := readMessage(in)
		if err == nil {
			err = c.answer(ctx, conn, message)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errPulled), ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("vpcd: %w", err)
		}
	}
}

// errPulled says that a fault took the card out of the reader.
var errPulled = errors.New("card pulled")

// answer acts on one message and answers it where the protocol has an answer.
func (c *Card) answer(ctx context.Context, w io.Writer, message []byte) error {
	if len(message) == 1 {
		switch message[0] {
		case vpcdOff, vpcdOn, vpcdReset:
			c.Reset()
			return nil
		case vpcdATR:
			return writeMessage(w, atr)
		}
		return fmt.Errorf("control message %02x", message[0])
	}
	response, end := c.exchange(message, ctx.Done())
	switch {
	case end == pulled, len(response) == 0: // the driver would wait for ever for the bytes of an empty message
		return errPulled
	case end == cut:
		// The announced length is that of the whole response, of which half is sent.
		half := binary.BigEndian.AppendUint16(nil, uint16(len(response)))
		half = append(half, response[:len(response)/2]...)
		if _, err := w.Write(half); err != nil {
			return err
		}
		return errPulled
	}
	return writeMessage(w, response)
}

// readMessage reads one message. It fails with io.EOF between messages and with io.ErrUnexpectedEOF inside one.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n == 0 {
		return nil, errors.New("empty message")
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, fmt.Errorf("message of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	return message, nil
}

// writeMessage writes length and bytes at once: two writes would cost a delayed acknowledgement, 44 ms, for every
// command.
func writeMessage(w io.Writer, message []byte) error {
	if len(message) > 1<<16-1 {
		return errors.New("message too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}
