package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast"
	pb "holdfast/api/holdfastpb"
	"holdfast/cmd/internal/config"
)

// defaultConfig is where the daemon's configuration is on an installed machine.
const defaultConfig = "/etc/holdfast/holdfastd.yaml"

// doctorTimeout bounds the questions to the daemon: a doctor answers even when the patient does not.
const doctorTimeout = 20 * time.Second

// finding is one thing the doctor looked at.
type finding struct {
	Level string `json:"level"` // ok, note, problem
	About string `json:"about"`
	Text  string `json:"text"`
}

// doctor collects findings.
type doctor struct{ findings []finding }

func (d *doctor) ok(about, format string, args ...any)   { d.add("ok", about, format, args...) }
func (d *doctor) note(about, format string, args ...any) { d.add("note", about, format, args...) }
func (d *doctor) problem(about, format string, args ...any) {
	d.add("problem", about, format, args...)
}

func (d *doctor) add(level, about, format string, args ...any) {
	d.findings = append(d.findings, finding{level, about, fmt.Sprintf(format, args...)})
}

func (c *cli) doctorCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong and say how to mend it",
		Long: "Looks at the daemon's configuration (when it can be read), at modules, readers, TPM and file modes on this machine,\n" +
			"and asks the daemon about each device: PIN tries left, keys missing or changed, modules that failed their test.\n" +
			"No PIN is tried. The exit code is 1 when there is a problem.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), doctorTimeout)
			defer cancel()
			d := &doctor{}
			d.configuration(file, cmd.Flags().Changed("config"))
			c.daemon(ctx, d)
			return c.printFindings(d.findings)
		},
	}
	cmd.Flags().StringVar(&file, "config", defaultConfig, "the daemon's configuration")
	return cmd
}

func (c *cli) printFindings(findings []finding) error {
	problems := 0
	for _, f := range findings {
		if f.Level == "problem" {
			problems++
		}
	}
	if c.json {
		if err := c.printAny(map[string]any{"findings": findings, "problems": problems}); err != nil {
			return err
		}
	} else if err := c.listFindings(findings); err != nil {
		return err
	}
	if problems > 0 {
		return holdfast.Errorf(holdfast.ErrState, "", "%d problems found", problems)
	}
	return nil
}

func (c *cli) listFindings(findings []finding) error {
	marks := map[string]string{"ok": "✓", "note": "·", "problem": "✗"}
	for _, f := range findings {
		if err := c.printf("%s %s: %s\n", marks[f.Level], visible(f.About), visibleLines(f.Text)); err != nil {
			return err
		}
	}
	return nil
}

// configuration looks at the file and at what it names.
func (d *doctor) configuration(file string, asked bool) {
	cfg, err := config.Load(file)
	switch {
	case err == nil:
		d.ok("configuration", "%s is valid and names %d backends", file, len(cfg.Backends))
	case holdfast.CodeOf(err) == holdfast.ErrNotFound && !asked:
		d.note("configuration", "there is no %s; give --config FILE to have another one looked at", file)
		return
	default:
		d.problem("configuration", "%v", err)
		return
	}
	d.private("state directory", cfg.StateDir)
	for _, b := range cfg.Backends {
		switch {
		case b.PKCS11 != nil:
			d.module(b.Name, b.PKCS11)
		case b.TPM2 != nil:
			d.tpm(b.Name, b.TPM2)
		case b.PIV != nil:
			d.reader(b.Name, b.PIV)
		}
	}
}

// private checks that others cannot look into a folder or file.
func (d *doctor) private(about, path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		d.note(about, "%s is not there yet or cannot be seen by this user: %v", path, err)
	case info.Mode().Perm()&0o077 != 0:
		d.problem(about, "others may look into %s (mode %04o); run: chmod go= %s", path, info.Mode().Perm(), path)
	default:
		d.ok(about, "%s is private", path)
	}
}

func (d *doctor) pin(name string, p config.PIN) {
	switch {
	case p.File != "":
		d.private(name+" PIN file", p.File)
	case p.Insecure != "":
		d.problem(name+" PIN", "the PIN stands in the configuration; move it to a file with mode 0600 and name that with pin: {file: ...}")
	}
}

func (d *doctor) module(name string, p *config.PKCS11) {
	head := make([]byte, 4)
	f, err := os.Open(p.Module)
	if err == nil {
		_, err = f.Read(head)
		_ = f.Close() // only read
	}
	switch {
	case err != nil:
		d.problem(name+" module", "%v; install the vendor's PKCS#11 library or correct pkcs11.module", err)
	case string(head) != "\x7fELF":
		d.problem(name+" module", "%s is no shared library", p.Module)
	default:
		d.ok(name+" module", "%s is a shared library", p.Module)
	}
	d.pin(name, p.PIN)
}

func (d *doctor) tpm(name string, t *config.TPM2) {
	path, isSocket := strings.CutPrefix(t.Device, "unix:")
	info, err := os.Stat(path)
	switch {
	case err != nil:
		d.problem(name+" device", "%v; a TPM is enabled in the firmware settings, and shows as /dev/tpmrm0", err)
	case isSocket && info.Mode().Type() != fs.ModeSocket, !isSocket && info.Mode()&fs.ModeDevice == 0:
		d.problem(name+" device", "%s is not what tpm2.device says", path)
	case path == "/dev/tpm0":
		d.note(name+" device", "/dev/tpm0 bypasses the kernel's resource manager; use /dev/tpmrm0 unless Holdfast is the TPM's only user")
	default:
		d.ok(name+" device", "%s is there", path)
	}
}

func (d *doctor) reader(name string, p *config.PIV) {
	path := p.Environment["PCSCLITE_CSOCK_NAME"]
	if path == "" {
		path = "/run/pcscd/pcscd.comm"
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		d.problem(name+" reader", "pcscd does not answer at %s; install it (apt-get install pcscd) and start it (systemctl enable --now pcscd.socket)", path)
	} else {
		_ = conn.Close() // only to see that it answers
		d.ok(name+" reader", "pcscd answers at %s", path)
	}
	d.pin(name, p.PIN)
}

// daemon asks the daemon about itself and each device.
func (c *cli) daemon(ctx context.Context, d *doctor) {
	path := c.socketPath()
	if info, err := os.Stat(path); err != nil {
		d.problem("daemon", "there is no socket %s; start holdfastd, or name its socket with --socket or HOLDFAST_SOCKET", path)
		return
	} else if info.Mode().Perm()&0o007 != 0 {
		d.problem("socket", "everybody may connect to %s (mode %04o)", path, info.Mode().Perm())
	}
	if dir, err := os.Stat(filepath.Dir(path)); err == nil && dir.Mode().Perm()&0o002 != 0 && dir.Mode()&fs.ModeSticky == 0 {
		d.problem("socket", "everybody may replace files in %s", filepath.Dir(path))
	}
	client, err := c.connect()
	if err == nil {
		var status *pb.Status
		if status, err = client.GetStatus(ctx, &pb.GetStatusRequest{}); err == nil {
			d.ok("daemon", "holdfastd %s answers at %s", status.GetVersion(), path)
		}
	}
	if err != nil {
		d.problem("daemon", "%v", err)
		return
	}
	resp, err := client.ListBackends(ctx, &pb.ListBackendsRequest{})
	if err != nil {
		d.problem("daemon", "%v", err)
		return
	}
	for _, b := range resp.GetBackends() {
		c.backend(ctx, d, b)
	}
}

func (c *cli) backend(ctx context.Context, d *doctor, b *pb.Backend) {
	if !b.GetAvailable() {
		d.problem(b.GetName(), "%s", b.GetReason())
		return
	}
	d.ok(b.GetName(), "%s answers; keys: %d", deviceName(b.GetDevice()), b.GetKeyCount())
	if b.GetDistrust() != "" {
		d.problem(b.GetName(), "keys on this module must not be believed to stay in it: %s", b.GetDistrust())
	}
	if p := b.GetPin(); p != nil {
		if p.GetRefused() {
			d.problem(b.GetName()+" PIN", "it was refused; correct it and run: holdfast backend unlock %s", b.GetName())
		} else {
			d.ok(b.GetName()+" PIN", "%s", pinText(p))
		}
	}
	for _, concern := range b.GetConcerns() {
		d.problem(b.GetName(), "%s", concern)
	}
	c.inspect(ctx, d, b.GetName())
}

// inspect compares the device with the records.
func (c *cli) inspect(ctx context.Context, d *doctor, name string) {
	i, err := c.client.InspectBackend(ctx, &pb.InspectBackendRequest{Name: name})
	if err != nil {
		d.problem(name+" keys", "%v", err)
		return
	}
	for _, kind := range []struct {
		what  string
		items []string
	}{
		{"is in the records and not on the device", i.GetMissing()},
		{"has another public key on the device than in the records", i.GetChanged()},
		{"was destroyed and is on the device", i.GetUndead()},
		{"waits to be finished", i.GetPending()},
	} {
		for _, item := range kind.items {
			d.problem(name+" keys", "%s %s", item, kind.what)
		}
	}
	if n := len(i.GetForeign()); n > 0 {
		d.note(name+" keys", "%d keys on the device are not in custody; `holdfast key adopt` takes them", n)
	}
	for _, text := range i.GetConcerns() {
		d.note(name, "%s", text)
	}
	for _, text := range i.GetUnusable() {
		d.note(name+" keys", "%s", text)
	}
}
