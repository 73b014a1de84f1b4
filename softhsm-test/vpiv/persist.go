package vpiv

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// savedCard is the form of a card in a file. Byte strings are base64.
type savedCard struct {
	Format     int               `json:"format"`
	Serial     uint32            `json:"serial"`
	Version    [3]byte           `json:"version"`
	FormFactor byte              `json:"formFactor"`
	PIN        savedReference    `json:"pin"`
	PUK        savedReference    `json:"puk"`
	Management savedManagement   `json:"management"`
	Keys       map[byte]savedKey `json:"keys"`
	Objects    map[uint32][]byte `json:"objects"`
	Root       []byte            `json:"attestationRoot"`
}

type savedReference struct {
	Value []byte `json:"value"` // padded
	Tries int    `json:"tries"`
	Most  int    `json:"most"`
}

type savedManagement struct {
	Algorithm byte   `json:"algorithm"`
	Key       []byte `json:"key"`
	Touch     byte   `json:"touch"`
}

type savedKey struct {
	Algorithm byte   `json:"algorithm"`
	PIN       byte   `json:"pinPolicy"`
	Touch     byte   `json:"touchPolicy"`
	Origin    byte   `json:"origin"`
	Private   []byte `json:"pkcs8"`
}

// savedFormat is the format this package writes and the only one it reads.
const savedFormat = 1

// Save writes what the card keeps without power to a file, secrets in the clear, mode 0600. The file is replaced as a
// whole or not at all.
func (c *Card) Save(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.save(path)
}

// KeepIn saves the card to a file now and after every command that changes it, before the command is answered, so that
// the card survives its process at any moment. The file is as with Save.
func (c *Card) KeepIn(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.save(path); err != nil {
		return err
	}
	c.path = path
	return nil
}

// Load returns the card that was saved to a file; it is not kept there until KeepIn. A file that is not a whole card is
// an error, and a missing one is fs.ErrNotExist.
func Load(path string) (*Card, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("vpiv: %w", err)
	}
	state, err := decodeState(data)
	if err != nil {
		return nil, fmt.Errorf("vpiv: %s: %w", path, err)
	}
	return &Card{state: state, touched: true}, nil
}

// LoadOrNew returns the card saved to a file, or makes one when there is none, and keeps it there. Of the Config only
// TouchRefused means anything to a card that exists.
func LoadOrNew(path string, config Config) (*Card, error) {
	card, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		card, err = NewCard(config)
	}
	if err != nil {
		return nil, err
	}
	card.SetTouch(!config.TouchRefused)
	if err := card.KeepIn(path); err != nil {
		return nil, err
	}
	return card, nil
}

// keep saves the card where KeepIn said. The caller holds mu.
func (c *Card) keep() error {
	if c.path == "" {
		return nil
	}
	return c.save(c.path)
}

func (c *Card) save(path string) error {
	data, err := encodeState(c.state)
	if err != nil {
		return fmt.Errorf("vpiv: save: %w", err)
	}
	if err := replaceFile(path, data); err != nil {
		return fmt.Errorf("vpiv: save: %w", err)
	}
	return nil
}

// replaceFile writes a new file, mode 0600, and puts it in the place of the old one. It does not wait for the disk: what
// has to be survived is the end of the process, not a power failure.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func encodeState(s state) ([]byte, error) {
	saved := savedCard{
		Format: savedFormat, Serial: s.serial, Version: s.version, FormFactor: s.formFactor,
		PIN: s.pin.saved(), PUK: s.puk.saved(),
		Management: savedManagement{s.management.algorithm, s.management.key, s.management.touch},
		Keys:       make(map[byte]savedKey, len(s.keys)),
		Objects:    s.objects,
		Root:       s.root,
	}
	for slot, key := range s.keys {
		der, err := x509.MarshalPKCS8PrivateKey(key.private.stored())
		if err != nil {
			return nil, fmt.Errorf("slot %02X: %w", slot, err)
		}
		saved.Keys[slot] = savedKey{key.algorithm, key.pin, key.touch, key.origin, der}
	}
	return json.MarshalIndent(saved, "", "\t")
}

func decodeState(data []byte) (state, error) {
	var saved savedCard
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&saved); err != nil {
		return state{}, err
	}
	if saved.Format != savedFormat {
		return state{}, fmt.Errorf("format %d, this program reads %d", saved.Format, savedFormat)
	}
	s := state{
		serial: saved.Serial, version: saved.Version, formFactor: saved.FormFactor,
		management: managementKey{saved.Management.Algorithm, saved.Management.Key, saved.Management.Touch},
		keys:       make(map[byte]*slotKey, len(saved.Keys)),
		objects:    saved.Objects,
		root:       saved.Root,
	}
	if s.objects == nil {
		s.objects = make(map[uint32][]byte)
	}
	var err error
	if s.pin, err = saved.PIN.restore(); err != nil {
		return state{}, fmt.Errorf("PIN: %w", err)
	}
	if s.puk, err = saved.PUK.restore(); err != nil {
		return state{}, fmt.Errorf("PUK: %w", err)
	}
	if _, err := s.management.cipher(); err != nil {
		return state{}, fmt.Errorf("management key: %w", err)
	}
	for slot, key := range saved.Keys {
		if s.keys[slot], err = key.restore(); err != nil {
			return state{}, fmt.Errorf("slot %02X: %w", slot, err)
		}
	}
	return s, nil
}

func (r *reference) saved() savedReference { return savedReference{r.value[:], r.tries, r.most} }

func (s savedReference) restore() (reference, error) {
	if len(s.Value) != referenceLen || s.Most < 1 || s.Most > 0xFF || s.Tries < 0 || s.Tries > s.Most {
		return reference{}, errors.New("not a PIN or PUK with its counter")
	}
	return reference{value: [referenceLen]byte(s.Value), tries: s.Tries, most: s.Most}, nil
}

func (k savedKey) restore() (*slotKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(k.Private)
	if err != nil {
		return nil, err
	}
	private, err := restoreKey(parsed)
	if err != nil {
		return nil, err
	}
	return &slotKey{k.Algorithm, k.PIN, k.Touch, k.Origin, private}, nil
}
