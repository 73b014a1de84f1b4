package vpiv

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	h := newHost(t, Config{Serial: 99, Version: [3]byte{5, 7, 2}, PIN: "246802", PUK: "13579135", FormFactor: 4})
	h.manage()
	slots := map[byte]byte{
		slotAuthentication: algP256, slotSignature: algP384, slotKeyManagement: algRSA1024, slotCardAuth: algEd25519,
		slotRetiredFirst: algX25519,
	}
	for slot, algorithm := range slots {
		h.generate(slot, algorithm, pinOnce, touchAlways)
	}
	h.verify("000000")
	if err := h.card.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
	card, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	again := &host{t, card}
	again.selectPIV()
	for slot := range slots {
		apdu := []byte{0, insGetMetadata, 0, slot, 0}
		want, _ := h.raw(apdu)
		if got, sw := again.raw(apdu); sw != swOK && sw&0xFF00 != swMoreData || !bytes.Equal(got, want) {
			t.Errorf("slot %02X: %v", slot, sw)
		}
	}
	if card.PINTries() != 2 || card.Serial() != 99 {
		t.Errorf("%d tries, serial %d", card.PINTries(), card.Serial())
	}
	again.manage()
	if sw := again.verify("246802"); sw != swOK {
		t.Errorf("PIN: %v", sw)
	}
	for slot, algorithm := range slots {
		if algorithm == algP256 || algorithm == algP384 || algorithm == algEd25519 {
			if _, sw := again.use(slot, algorithm, tagChallenge, make([]byte, 32)); sw != swOK {
				t.Errorf("slot %02X: %v", slot, sw)
			}
		}
	}
	again.do(insAttest, slotAuthentication, 0, nil)
}

func TestKeepIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	card, err := LoadOrNew(path, Config{Serial: 1})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, card}
	h.selectPIV()
	h.manage()
	h.generate(slotAuthentication, algP256)
	h.verify("000000")
	// No word to the first card: it might as well have been killed.
	reborn, err := LoadOrNew(path, Config{Serial: 2})
	if err != nil {
		t.Fatal(err)
	}
	again := &host{t, reborn}
	again.selectPIV()
	again.ok("00 F7 00 9A")
	if reborn.Serial() != 1 || reborn.PINTries() != 2 {
		t.Errorf("serial %d, %d tries", reborn.Serial(), reborn.PINTries())
	}
}

func TestCardThatCannotSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, Config{})
	if err := h.card.KeepIn(filepath.Join(dir, "card")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if sw := h.verify(DefaultPIN); sw != swMemory {
		t.Errorf("a try that was not saved: %v", sw)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	h := newHost(t, Config{})
	path := filepath.Join(dir, "card")
	if err := h.card.Save(path); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"another format": {`"format": 1`, `"format": 2`}, "unknown field": {`"format"`, `"colour": 1, "format"`},
		"cut": {`"attestationRoot"`, ""}, "tries above the most": {`"tries": 3`, `"tries": 4`},
		"key of another kind": {`"algorithm": 10`, `"algorithm": 12`}, "no PKCS #8": {`"pkcs8": "M`, `"pkcs8": "A`},
	} {
		bad := strings.Replace(string(good), edit[0], edit[1], 1)
		if bad == string(good) {
			t.Fatalf("%s: the edit changes nothing", name)
		}
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
