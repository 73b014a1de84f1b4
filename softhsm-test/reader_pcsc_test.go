package softhsmtest

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"testing"
)

// states returns a list as the daemon sends it, with a card in the first slot or not.
func states(card bool) []byte {
	const size = 184
	list := make([]byte, pcscReaders*size)
	copy(list, "Virtual PCD 00 00")
	copy(list[size:], "Virtual PCD 00 01")
	if card {
		binary.NativeEndian.PutUint32(list[pcscNameLen+4:], pcscStateCard|pcscStatePower)
	}
	return list
}

// TestReaderStateOrders plays the daemon: an event is sent by another thread and may overtake the list it is about.
func TestReaderStateOrders(t *testing.T) {
	event := make([]byte, pcscEventLen)
	for name, writes := range map[string][][]byte{
		"after":          {states(false), event},
		"with, after":    {append(states(false), event...)},
		"before":         {event, states(false)},
		"with, before":   {append(append([]byte(nil), event...), states(false)...)},
		"not needed any": {states(true)},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(socketDir(t), "s")
			listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = listener.Close() }()
			go playDaemon(listener, writes)
			if err := awaitReaderState(t.Context(), socket, func(s []readerState) bool { return s[0].present() }); err != nil {
				t.Error(err)
			}
		})
	}
}

// playDaemon answers one client: the version, then each of writes after the next request or at once, then the states with
// a card.
func playDaemon(listener net.Listener, writes [][]byte) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	request := make([]byte, 1024)
	_, _ = conn.Read(request)
	_, _ = conn.Write(make([]byte, 12))
	_, _ = conn.Read(request)
	for _, w := range writes {
		_, _ = conn.Write(w)
	}
	_, _ = conn.Read(request)
	_, _ = conn.Write(states(true))
	_, _ = conn.Read(request) // until the client leaves
}

func TestParseStates(t *testing.T) {
	for _, n := range []int{0, 1, 16, pcscReaders * (pcscNameLen + 7), 2945} {
		if _, err := parseStates(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were taken for a list", n)
		}
	}
	list, err := parseStates(states(true))
	if err != nil || len(list) != 2 || !list[0].present() || !list[0].powered() || list[1].present() {
		t.Errorf("%+v, %v", list, err)
	}
}
