package softhsmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// The files of a manufactured TPM.
const (
	swtpmState = "tpm2-00.permall" // the non-volatile memory, under the name swtpm gives it
	swtpmRoots = "roots.pem"       // the CA's certificates
)

// sharedFactory names the folder of the TPM that all tests of this user copy.
func sharedFactory() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place to keep a manufactured TPM in: %w", err)
	}
	cache = filepath.Join(cache, "holdfast", "softhsmtest")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(cache, "swtpm-1"), nil
}

// manufactureTPM makes a TPM with endorsement keys (RSA-2048 and P-384), their certificates by a CA of its own, a platform
// certificate, and the PCR banks SHA-256 and SHA-384, in a folder that appears complete or not at all. It does nothing
// where the folder is there already.
func manufactureTPM(ctx context.Context, folder string) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	work, err := os.MkdirTemp(filepath.Dir(folder), "manufacture")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	config, err := writeSetupConfig(work)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "swtpm_setup", "--tpm2", "--tpmstate", work, "--config", config, "--create-ek-cert",
		"--create-platform-cert", "--ecc", "--lock-nvram", "--overwrite", "--pcr-banks", "sha256,sha384")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // and the swtpm it started
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("manufacture a TPM (package swtpm-tools): %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := collectRoots(work); err != nil {
		return err
	}
	err = os.Rename(work, folder)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, os.ErrExist) {
		return nil // another process was faster; its TPM is as good
	}
	return err
}

// writeSetupConfig writes the configuration files of swtpm_setup and swtpm_localca, and returns the first one's path.
func writeSetupConfig(dir string) (string, error) {
	ca := filepath.Join(dir, "ca")
	if err := os.Mkdir(ca, 0o700); err != nil {
		return "", err
	}
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return "", fmt.Errorf("manufacture a TPM (package swtpm-tools): %w", err)
	}
	files := map[string]string{
		"localca.options": "--platform-manufacturer Holdfast\n--platform-version 1\n--platform-model test\n",
		"localca.conf": fmt.Sprintf("statedir=%[1]s\nsigningkey=%[1]s/signkey.pem\nissuercert=%[1]s/issuercert.pem\n"+
			"certserial=%[1]s/certserial\n", ca),
		"setup.conf": fmt.Sprintf("create_certs_tool=%s\ncreate_certs_tool_config=%[2]s/localca.conf\n"+
			"create_certs_tool_options=%[2]s/localca.options\nactive_pcr_banks=sha256,sha384\n", tool, dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "setup.conf"), nil
}

// collectRoots writes the CA's certificates into one file.
func collectRoots(dir string) error {
	var roots []byte
	for _, name := range []string{"issuercert.pem", "swtpm-localca-rootca-cert.pem"} {
		text, err := os.ReadFile(filepath.Join(dir, "ca", name))
		if err != nil {
			return err
		}
		roots = append(roots, text...)
	}
	return os.WriteFile(filepath.Join(dir, swtpmRoots), roots, 0o600)
}
