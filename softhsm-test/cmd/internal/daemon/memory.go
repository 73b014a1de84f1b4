package daemon

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is how much memory a process has, in bytes.
type Memory struct {
	Resident int64 // now (VmRSS)
	Peak     int64 // the most it ever had (VmHWM)
}

// Memory returns how much memory the daemon has, as the kernel says.
func (d *Daemon) Memory() (Memory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return Memory{}, err
	}
	defer f.Close()
	var m Memory
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		var field *int64
		switch name {
		case "VmRSS":
			field = &m.Resident
		case "VmHWM":
			field = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("%s in /proc/PID/status: %w", name, err)
		}
		*field = kib << 10
	}
	return m, lines.Err()
}
