// Package lab brings up the three virtual devices together, with everything a daemon and its callers need to use them: a
// SoftHSM2 token, a TPM (swtpm) and a PIV card in a reader of a private PC/SC daemon.
//
// The devices protect nothing: their PINs lie beside them.
package lab

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/vpiv"
)

// The names of the devices.
const (
	tokenLabel = "holdfast"
	cardSerial = 12345678
)

// Lab is the three devices, as far as they are up.
type Lab struct {
	Dir    string
	Token  *softhsmtest.Token
	TPM    *softhsmtest.TPM
	Reader *softhsmtest.Reader
	Card   *vpiv.Card
}

// Start brings the devices up in dir, whose path must be short (sockets), and writes holdfastd.yaml, a configuration of
// holdfastd for the three, their PINs (pins), what their attestations verify against (trust), and a web server's
// certificate for [Domain]. With the same folder it brings the same devices back. What it returns has to be stopped also
// when it fails.
func Start(ctx context.Context, dir string) (*Lab, error) {
	d := new(Lab)
	var err error
	if d.Dir, err = filepath.Abs(dir); err != nil {
		return d, err
	}
	for _, name := range []string{"pins", "trust", "softhsm", "swtpm", "pcscd", "card", "web"} {
		if err := os.MkdirAll(filepath.Join(d.Dir, name), 0o700); err != nil {
			return d, err
		}
	}
	if d.Token, err = softhsmtest.KeepToken(filepath.Join(d.Dir, "softhsm"), tokenLabel); err != nil {
		return d, fmt.Errorf("token: %w", err)
	}
	if d.TPM, err = softhsmtest.KeepTPM(ctx, filepath.Join(d.Dir, "swtpm")); err != nil {
		return d, fmt.Errorf("TPM: %w", err)
	}
	if err := d.startCard(ctx); err != nil {
		return d, fmt.Errorf("card: %w", err)
	}
	return d, d.writeFiles()
}

func (d *Lab) startCard(ctx context.Context) error {
	var err error
	d.Card, err = vpiv.LoadOrNew(filepath.Join(d.Dir, "card", "card.json"), vpiv.Config{Serial: cardSerial})
	if err != nil {
		return err
	}
	if d.Reader, err = softhsmtest.StartReader(ctx, filepath.Join(d.Dir, "pcscd")); err != nil {
		return err
	}
	return d.Reader.Insert(ctx, 0, d.Card)
}

// Stop ends the devices; what they hold stays in the folder.
func (d *Lab) Stop(ctx context.Context) error {
	var errs []error
	if d.Reader != nil {
		errs = append(errs, d.Reader.Stop())
	}
	if d.TPM != nil {
		errs = append(errs, d.TPM.Stop(ctx))
	}
	return errors.Join(errs...)
}

// writeFiles writes PINs, trust anchors, the web server's certificate and the configuration.
func (d *Lab) writeFiles() error {
	root, err := d.Card.AttestationRoot()
	if err != nil {
		return err
	}
	web, err := keepWeb(filepath.Join(d.Dir, "web"))
	if err != nil {
		return fmt.Errorf("certificate of the web server: %w", err)
	}
	files := map[string][]byte{
		"pins/hsm":                       []byte(d.Token.PIN + "\n"),
		"pins/hsm-so":                    []byte(d.Token.SOPIN + "\n"),
		"pins/card":                      []byte(vpiv.DefaultPIN + "\n"),
		"trust/tpm-ek-ca.pem":            d.TPM.CARoot,
		"trust/piv-attestation-root.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}),
		"trust/web-ca.pem":               web.ca,
		"holdfastd.yaml":                 d.configuration(web),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(d.Dir, filepath.FromSlash(name)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// configuration returns a configuration of holdfastd. Go's quoting of a path is YAML's.
func (d *Lab) configuration(web *web) []byte {
	in := func(name string) string { return filepath.Join(d.Dir, filepath.FromSlash(name)) }
	return fmt.Appendf(nil, `# The three virtual devices of %[1]q; written at every start of the devices.
state_dir: %[2]q
socket:
  path: %[3]q
http:
  listen: %[4]q
  certificate: %[5]q
  key: %[6]q
resolver:
  # The domain of the tour is nobody's: it is this daemon.
  pins: {%[7]q: %[4]q}
  roots: %[8]q
backends:
  - name: hsm
    pkcs11:
      module: %[9]q
      token_label: %[10]q
      pin: {file: %[11]q}
      environment: {SOFTHSM2_CONF: %[12]q}
  - name: tpm
    tpm2:
      device: %[13]q
  - name: card
    piv:
      serial: %[14]d
      pin: {file: %[15]q}
      environment: {PCSCLITE_CSOCK_NAME: %[16]q}
`, d.Dir, in("state"), in("holdfastd.sock"), web.address, in("web/server.pem"), in("web/server.key"),
		Domain+":443", in("trust/web-ca.pem"), d.Token.Module, d.Token.Label, in("pins/hsm"), d.Token.Conf,
		"unix:"+d.TPM.SocketPath, cardSerial, in("pins/card"), d.Reader.Socket)
}
