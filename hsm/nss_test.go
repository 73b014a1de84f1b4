//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast"
)

// NSS softokn is a module that gives protected keys away.

// nssReport is what the child found out about NSS.
type nssReport struct {
	Device     holdfast.Device
	Algorithms []holdfast.Support
	Distrust   string
	Failures   []string
}

func nssTask(t childTask) (any, error) {
	ctx := context.Background()
	b, err := Open(ctx, Config{Module: t.Module, TokenLabel: t.Label, PIN: pinOf(t.PIN), InitString: t.InitString})
	if err != nil {
		return nil, err
	}
	caps := b.Capabilities()
	report := nssReport{Device: caps.Device, Algorithms: caps.Algorithms, Distrust: caps.Distrust}
	for _, support := range caps.Algorithms {
		if support.Algorithm.Bits() > 2048 {
			continue
		}
		for r, has := range map[holdfast.Residence]bool{holdfast.Resident: support.Resident, holdfast.Wrapped: support.Wrapped} {
			if !has {
				continue
			}
			err := useOnce(ctx, b, support.Algorithm, r)
			if support.Algorithm.JOSE() == "PS256" { // NSS cannot store what tells it from RS256
				if errors.Is(err, holdfast.ErrUnsupported) && !b.Capabilities().Supports(support.Algorithm, r) {
					continue
				}
				err = fmt.Errorf("PS256 is still offered: %w", err)
			}
			if err != nil {
				report.Failures = append(report.Failures, fmt.Sprintf("%s %s: %v", r, support.Algorithm, err))
			}
		}
	}
	return report, b.Close()
}

// useOnce makes a key, signs with it if it signs, attests and destroys it.
func useOnce(ctx context.Context, b *Backend, a holdfast.Algorithm, r holdfast.Residence) error {
	k, err := b.Generate(ctx, holdfast.KeySpec{Label: "nss " + string(a), Algorithm: a, Residence: r})
	if err != nil {
		return err
	}
	if a.Use() == holdfast.UseSign {
		digest := testDigest(a)
		signature, err := k.Sign(ctx, digest, nil)
		if err != nil {
			return err
		}
		if err := holdfast.Verify(a, k.Public(), digest, signature); err != nil {
			return err
		}
	}
	e, err := k.(holdfast.Attester).Attest(ctx, make([]byte, 32))
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	if !strings.Contains(string(e.Files["attributes.json"]), `"distrust":"the module gives protected keys away`) {
		return errors.New("the evidence does not say that the module is not to be trusted")
	}
	if r == holdfast.Resident {
		return b.Destroy(ctx, k.Ref())
	}
	return nil
}

func nssModule(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
		"/usr/lib/aarch64-linux-gnu/libsoftokn3.so", "/usr/lib64/libsoftokn3.so"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("libsoftokn3.so is missing: install libnss3 and libnss3-tools")
	return ""
}

func TestDistrustsNSS(t *testing.T) {
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte("Holdfast1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "certutil", "-N", "-d", "sql:"+dir, "-f", pin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("certutil: %v: %s", err, out)
	}
	var report nssReport
	inChild(t, childTask{
		Name: "nss", Module: nssModule(t), Label: "NSS Certificate DB", PIN: "Holdfast1234",
		InitString: fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db'", dir),
	}, nil, nil, &report)
	t.Logf("%+v", report)
	for _, escape := range []string{"C_WrapKey", "C_CopyObject with CKA_EXTRACTABLE true"} {
		if !strings.Contains(report.Distrust, escape) {
			t.Errorf("distrust %q does not say that %s works", report.Distrust, escape)
		}
	}
	if len(report.Algorithms) == 0 || len(report.Failures) > 0 {
		t.Errorf("algorithms %v, failures %v", report.Algorithms, report.Failures)
	}
}
