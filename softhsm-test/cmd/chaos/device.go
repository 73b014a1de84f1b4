package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/cmd/internal/daemon"
	"holdfast/softhsm-test/vpiv"
)

// cardSerial is the serial number of the virtual card.
const cardSerial = 4711

// devices are what the daemon works with. card and reader are nil where no card takes part.
type devices struct {
	token  *softhsmtest.Token
	tpm    *softhsmtest.TPM
	reader *softhsmtest.Reader
	card   *vpiv.Card
}

// bringUp starts the devices in dir. What it returns has to be stopped also when it fails.
func bringUp(ctx context.Context, dir string, card bool) (*devices, error) {
	d := new(devices)
	var err error
	if d.token, err = softhsmtest.NewToken(filepath.Join(dir, "softhsm"), "chaos"); err != nil {
		return d, err
	}
	swtpm := filepath.Join(dir, "swtpm")
	if err := os.Mkdir(swtpm, 0o700); err != nil {
		return d, err
	}
	if d.tpm, err = softhsmtest.StartTPM(ctx, swtpm); err != nil || !card {
		return d, err
	}
	pcscd := filepath.Join(dir, "pcscd")
	if err := os.Mkdir(pcscd, 0o700); err != nil {
		return d, err
	}
	if d.reader, err = softhsmtest.StartReader(ctx, pcscd); err != nil {
		return d, err
	}
	return d, d.insertCard(ctx)
}

func (d *devices) insertCard(ctx context.Context) (err error) {
	if d.card, err = vpiv.NewCard(vpiv.Config{Serial: cardSerial}); err != nil {
		return err
	}
	return d.reader.Insert(ctx, 0, d.card)
}

func (d *devices) stop(ctx context.Context) error {
	var errs []error
	if d.tpm != nil {
		errs = append(errs, d.tpm.Stop(ctx))
	}
	if d.reader != nil {
		errs = append(errs, d.reader.Stop())
	}
	return errors.Join(errs...)
}

// The names of the backends.
const (
	onToken = "hsm"
	onTPM   = "tpm"
	onCard  = "card"
)

func (d *devices) backends() []daemon.Backend {
	list := []daemon.Backend{{Name: onToken, Token: d.token}, {Name: onTPM, TPM: d.tpm}}
	if d.card != nil {
		card := &daemon.Card{Serial: cardSerial, PIN: vpiv.DefaultPIN, Socket: d.reader.Socket}
		list = append(list, daemon.Backend{Name: onCard, Card: card})
	}
	return list
}

// kind is a kind of key that a caller makes.
type kind struct {
	backend   string
	algorithm holdfast.Algorithm
	residence holdfast.Residence
}

// kinds says which kinds of keys each caller makes, in turn.
func (d *devices) kinds() [][]kind {
	resident := []kind{
		{onToken, holdfast.ES256, holdfast.Resident},
		{onToken, holdfast.EdDSA, holdfast.Resident},
		{onToken, holdfast.A256GCM, holdfast.Resident},
	}
	wrapped := []kind{{onToken, holdfast.ES256, holdfast.Wrapped}}
	list := [][]kind{
		resident, resident, resident, wrapped, wrapped,
		{{onTPM, holdfast.ES256, holdfast.Wrapped}},
		{{onTPM, holdfast.ES256, holdfast.Resident}},
	}
	if d.card != nil {
		list = append(list, []kind{{onCard, holdfast.ES256, holdfast.Resident}})
	}
	return list
}

// rawKeys is what one device has, read without the daemon: what identifies a resident key, to the parts of it that are
// there. Whole keys of one device all have the parts that whole lists for their algorithm.
type rawKeys map[string][]string

// raw reads every device. The daemon must not run: a TPM serves one client at a time.
func (d *devices) raw(ctx context.Context) (map[string]rawKeys, error) {
	token, err := listToken(d.token)
	if err != nil {
		return nil, fmt.Errorf("list the token: %w", err)
	}
	tpm, err := listTPM(ctx, d.tpm)
	if err != nil {
		return nil, fmt.Errorf("list the TPM: %w", err)
	}
	all := map[string]rawKeys{onToken: token, onTPM: tpm}
	if d.card != nil {
		if all[onCard], err = listCard(d.card); err != nil {
			return nil, fmt.Errorf("list the card: %w", err)
		}
	}
	return all, nil
}
