//go:build cgo && !nopiv

package token_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
)

const (
	serial = 13370000
	pin    = "246810" // not the factory's
	puk    = "97531864"
)

// socketName is what PCSCLITE_CSOCK_NAME is for the life of the process, because libpcsclite reads it once: a link to
// the socket of whatever reader is there.
func socketName() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("holdfast-token-%d.comm", os.Getpid()))
}

// startReader starts a reader with its own PC/SC daemon; stop ends it.
func startReader(ctx context.Context) (reader *softhsmtest.Reader, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "token")
	if err != nil {
		return nil, nil, err
	}
	reader, err = softhsmtest.StartReader(ctx, dir)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() error { return errors.Join(os.Remove(socketName()), reader.Stop(), os.RemoveAll(dir)) }
	if err := os.Symlink(reader.Socket, socketName()); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return reader, stop, nil
}

// bench is a reader with a card in its first slot.
type bench struct {
	t      *testing.T
	reader *softhsmtest.Reader
	card   *vpiv.Card
	pins   *pinMemory
	store  *secretStore
}

// newBench inserts a card into a reader of its own. Serial and PIN are filled in.
func newBench(t *testing.T, cfg vpiv.Config) *bench {
	t.Helper()
	reader, stop, err := startReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{t: t, reader: reader, pins: &pinMemory{}, store: &secretStore{}}
	b.card = newCard(t, cfg)
	b.insert(b.card)
	return b
}

func newCard(t *testing.T, cfg vpiv.Config) *vpiv.Card {
	t.Helper()
	if cfg.Serial == 0 {
		cfg.Serial = serial
	}
	cfg.PIN, cfg.PUK = pin, puk
	card, err := vpiv.NewCard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return card
}

func (b *bench) insert(card *vpiv.Card) {
	b.t.Helper()
	if err := b.reader.Insert(b.t.Context(), 0, card); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) remove() {
	b.t.Helper()
	if err := b.reader.Remove(b.t.Context(), 0); err != nil {
		b.t.Fatal(err)
	}
}

// reinsert puts the card back that a fault pulled out.
func (b *bench) reinsert() {
	b.t.Helper()
	b.remove()
	b.insert(b.card)
}

// config opens the card as a daemon would.
func (b *bench) config() token.Config {
	return token.Config{
		PIN: fixedPIN(pin), PINMemory: b.pins, Secrets: b.store,
		Environment: map[string]string{"PCSCLITE_CSOCK_NAME": socketName()},
	}
}

func fixedPIN(pin string) func(context.Context) (holdfast.Secret, error) {
	return func(context.Context) (holdfast.Secret, error) { return holdfast.NewSecret([]byte(pin)), nil }
}

func (b *bench) open(cfg token.Config) *token.Backend {
	b.t.Helper()
	backend, err := token.Open(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := backend.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return backend
}

// generate makes a P-256 key in the first free slot.
func (b *bench) generate(backend *token.Backend, edit func(*holdfast.KeySpec)) holdfast.Key {
	b.t.Helper()
	spec := holdfast.KeySpec{Label: "test", Algorithm: holdfast.ES256}
	if edit != nil {
		edit(&spec)
	}
	k, err := backend.Generate(b.t.Context(), spec)
	if err != nil {
		b.t.Fatal(err)
	}
	return k
}

// sign signs and verifies.
func (b *bench) sign(k holdfast.Key) error {
	digest := k.Algorithm().Digest([]byte("message"))
	signature, err := k.Sign(b.t.Context(), digest, nil)
	if err != nil {
		return err
	}
	return holdfast.Verify(k.Algorithm(), k.Public(), digest, signature)
}

func (b *bench) mustSign(k holdfast.Key) {
	b.t.Helper()
	if err := b.sign(k); err != nil {
		b.t.Fatalf("sign: %v", err)
	}
}

// other opens the card with piv-go, as another program would.
func (b *bench) other() *piv.YubiKey {
	b.t.Helper()
	yk, err := piv.Open(b.reader.Name(0))
	if err != nil {
		b.t.Fatalf("another program: %v", err)
	}
	return yk
}

// byAnother lets another program do something with the card, which backend is let go of before.
func (b *bench) byAnother(backend *token.Backend, f func(*piv.YubiKey) error) {
	b.t.Helper()
	if err := backend.Close(); err != nil {
		b.t.Fatal(err)
	}
	yk := b.other()
	if err := f(yk); err != nil {
		b.t.Fatalf("another program: %v", err)
	}
	if err := yk.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// list returns the refs of the keys and the errors that Keys yields.
func (b *bench) list(backend *token.Backend) (refs []holdfast.Ref, problems []error) {
	for k, err := range backend.Keys(b.t.Context()) {
		if err != nil {
			problems = append(problems, err)
		} else {
			refs = append(refs, k.Ref())
		}
	}
	return refs, problems
}

// want checks the code of an error, that it says something, and that it does not say the PIN.
func want(t *testing.T, err error, code holdfast.Code, words ...string) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got error %v, want code %q", err, code.Error())
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error %q does not say %q", err, word)
		}
	}
	for _, secret := range []string{pin, puk, "111111"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q has a secret in it", err)
		}
	}
}

func retries(t *testing.T, err error, left int) {
	t.Helper()
	e, ok := errors.AsType[*holdfast.Error](err)
	if !ok || e.Retries != left {
		t.Errorf("error %v: want %d tries left", err, left)
	}
}

// pinMemory is a PINMemory in memory.
type pinMemory struct {
	mu    sync.Mutex
	state map[string]holdfast.PINState // guarded by mu
}

func (m *pinMemory) LoadPIN(_ context.Context, device string) (holdfast.PINState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state[device], nil
}

func (m *pinMemory) StorePIN(_ context.Context, device string, state holdfast.PINState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == nil {
		m.state = map[string]holdfast.PINState{}
	}
	m.state[device] = state
	return nil
}

// secretStore is a SecretStore in memory.
type secretStore struct {
	mu      sync.Mutex
	secrets map[string]string // guarded by mu
}

func (s *secretStore) LoadSecret(_ context.Context, name string) (holdfast.Secret, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.secrets[name]
	return holdfast.NewSecret([]byte(value)), ok, nil
}

func (s *secretStore) StoreSecret(_ context.Context, name string, secret holdfast.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secrets == nil {
		s.secrets = map[string]string{}
	}
	s.secrets[name] = string(secret.Bytes())
	return nil
}

func (s *secretStore) value(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.secrets[name])
}
