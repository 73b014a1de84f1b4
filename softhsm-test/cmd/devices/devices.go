package main

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

// devices are the three devices, as far as they are up.
type devices struct {
	dir    string
	token  *softhsmtest.Token
	tpm    *softhsmtest.TPM
	reader *softhsmtest.Reader
	card   *vpiv.Card
}

// start brings the devices up and writes the files. What it returns has to be stopped also when it fails.
func start(ctx context.Context, dir string) (*devices, error) {
	d := new(devices)
	var err error
	if d.dir, err = filepath.Abs(dir); err != nil {
		return d, err
	}
	for _, name := range []string{"pins", "trust", "softhsm", "swtpm", "pcscd", "card", "web"} {
		if err := os.MkdirAll(filepath.Join(d.dir, name), 0o700); err != nil {
			return d, err
		}
	}
	if d.token, err = softhsmtest.KeepToken(filepath.Join(d.dir, "softhsm"), tokenLabel); err != nil {
		return d, fmt.Errorf("token: %w", err)
	}
	if d.tpm, err = softhsmtest.KeepTPM(ctx, filepath.Join(d.dir, "swtpm")); err != nil {
		return d, fmt.Errorf("TPM: %w", err)
	}
	if err := d.startCard(ctx); err != nil {
		return d, fmt.Errorf("card: %w", err)
	}
	return d, d.writeFiles()
}

func (d *devices) startCard(ctx context.Context) error {
	var err error
	d.card, err = vpiv.LoadOrNew(filepath.Join(d.dir, "card", "card.json"), vpiv.Config{Serial: cardSerial})
	if err != nil {
		return err
	}
	if d.reader, err = softhsmtest.StartReader(ctx, filepath.Join(d.dir, "pcscd")); err != nil {
		return err
	}
	return d.reader.Insert(ctx, 0, d.card)
}

func (d *devices) stop(ctx context.Context) error {
	var errs []error
	if d.reader != nil {
		errs = append(errs, d.reader.Stop())
	}
	if d.tpm != nil {
		errs = append(errs, d.tpm.Stop(ctx))
	}
	return errors.Join(errs...)
}

// writeFiles writes PINs, trust anchors, the web server's certificate and the configuration.
func (d *devices) writeFiles() error {
	root, err := d.card.AttestationRoot()
	if err != nil {
		return err
	}
	web, err := keepWeb(filepath.Join(d.dir, "web"))
	if err != nil {
		return fmt.Errorf("certificate of the web server: %w", err)
	}
	files := map[string][]byte{
		"pins/hsm":                       []byte(d.token.PIN + "\n"),
		"pins/hsm-so":                    []byte(d.token.SOPIN + "\n"),
		"pins/card":                      []byte(vpiv.DefaultPIN + "\n"),
		"trust/tpm-ek-ca.pem":            d.tpm.CARoot,
		"trust/piv-attestation-root.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}),
		"trust/web-ca.pem":               web.ca,
		"holdfastd.yaml":                 d.configuration(web),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(d.dir, filepath.FromSlash(name)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// configuration returns a configuration of holdfastd. Go's quoting of a path is YAML's.
func (d *devices) configuration(web *web) []byte {
	in := func(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }
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
`, d.dir, in("state"), in("holdfastd.sock"), web.address, in("web/server.pem"), in("web/server.key"),
		webDomain+":443", in("trust/web-ca.pem"), d.token.Module, d.token.Label, in("pins/hsm"), d.token.Conf,
		"unix:"+d.tpm.SocketPath, cardSerial, in("pins/card"), d.reader.Socket)
}
