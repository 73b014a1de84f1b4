// Package softkey is a holdfast.Backend whose "device" is this process's memory, optionally mirrored in a file so that
// it outlives the process. It exists for tests of the code above the contract: it implements every optional interface,
// fails on demand, and protects nothing. No release binary can be configured to use it.
package softkey

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"holdfast"
)

// Config describes a device.
type Config struct {
	// File mirrors the device; empty keeps it in memory only. It is created when missing.
	File string

	// PIN protects the device; empty for none. TryPIN is what the backend gives to the device when it opens it.
	PIN, TryPIN string

	// Memory remembers refused PINs; nil for none.
	Memory holdfast.PINMemory

	// Fault, if not nil, is asked before each device command ("generate", "sign", "destroy", "probe", ...); its error is
	// returned instead of doing the command.
	Fault func(op string) error

	// Slots is the number of resident keys that fit; 0 means 1000.
	Slots int
}

// Backend is an open software device.
type Backend struct {
	cfg    Config
	mu     sync.Mutex
	device device // guarded by mu
	closed bool   // guarded by mu
}

// device is everything that outlives the process.
type device struct {
	Keys map[holdfast.Ref]material `json:"keys"`
	Root []byte                    `json:"root"` // wraps and seals
}

// material is one key.
type material struct {
	Algorithm holdfast.Algorithm `json:"algorithm"`
	Label     string             `json:"label"`
	Private   []byte             `json:"private"`
}

var (
	_ holdfast.Backend   = (*Backend)(nil)
	_ holdfast.Destroyer = (*Backend)(nil)
	_ holdfast.Planner   = (*Backend)(nil)
	_ holdfast.Loader    = (*Backend)(nil)
	_ holdfast.Sealer    = (*Backend)(nil)
	_ holdfast.Unlocker  = (*Backend)(nil)
	_ holdfast.Prober    = (*Backend)(nil)
)

const deviceName = "softkey"

// Open opens the device. It returns ErrAuth when the PIN is wrong and ErrLocked when one was refused before.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Slots == 0 {
		cfg.Slots = 1000
	}
	b := &Backend{cfg: cfg, device: device{Keys: map[holdfast.Ref]material{}}}
	if err := b.load(); err != nil {
		return nil, err
	}
	if b.device.Root == nil {
		b.device.Root = make([]byte, 32)
		_, _ = rand.Read(b.device.Root)
		if err := b.save(); err != nil {
			return nil, err
		}
	}
	if cfg.Memory != nil && cfg.PIN != "" {
		state, err := cfg.Memory.LoadPIN(ctx, deviceName)
		if err != nil {
			return nil, err
		}
		if state == holdfast.PINRefused {
			return nil, &holdfast.Error{Op: "open", Code: holdfast.ErrLocked, Retries: holdfast.RetriesUnknown}
		}
	}
	if cfg.PIN != "" {
		if err := b.login(ctx, cfg.TryPIN); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Backend) login(ctx context.Context, pin string) error {
	state, err := holdfast.PINAccepted, error(nil)
	if pin != b.cfg.PIN {
		state = holdfast.PINRefused
		err = &holdfast.Error{Op: "login", Code: holdfast.ErrAuth, Retries: 2}
	}
	if b.cfg.Memory != nil {
		if storeErr := b.cfg.Memory.StorePIN(ctx, deviceName, state); storeErr != nil {
			return storeErr
		}
	}
	return err
}

func (b *Backend) load() error {
	if b.cfg.File == "" {
		return nil
	}
	text, err := os.ReadFile(b.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &b.device)
}

// save replaces the file. mu is held.
func (b *Backend) save() error {
	if b.cfg.File == "" {
		return nil
	}
	text, err := json.Marshal(b.device)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.cfg.File+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(b.cfg.File+".new", b.cfg.File)
}

// enter starts a device command: it locks the device and reports what stands in the way.
func (b *Backend) enter(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return holdfast.Errorf(holdfast.ErrUnavailable, op, "the backend is closed")
	}
	if b.cfg.Fault != nil {
		if err := b.cfg.Fault(op); err != nil {
			b.mu.Unlock()
			return err
		}
	}
	return nil
}

// Capabilities returns all algorithms in both residences.
func (b *Backend) Capabilities() holdfast.Capabilities {
	caps := holdfast.Capabilities{
		Kind:             "softkey",
		Device:           holdfast.Device{Manufacturer: "Holdfast", Model: "softkey", Serial: "0"},
		DefaultResidence: holdfast.Resident,
		Distrust:         "keys are in the memory of a process",
	}
	for _, a := range holdfast.Algorithms() {
		caps.Algorithms = append(caps.Algorithms, holdfast.Support{Algorithm: a, Resident: true, Wrapped: true})
	}
	return caps
}

// Plan fills in the identifier.
func (b *Backend) Plan(ctx context.Context, spec holdfast.KeySpec) (holdfast.KeySpec, holdfast.Ref, error) {
	if err := b.check(spec); err != nil {
		return spec, "", err
	}
	if spec.Residence == holdfast.Wrapped {
		return spec, "", holdfast.Errorf(holdfast.ErrInvalid, "plan", "a wrapped key needs no plan")
	}
	if spec.ID == nil {
		spec.ID = make([]byte, 16)
		_, _ = rand.Read(spec.ID)
	}
	return spec, refOf(spec.ID), ctx.Err()
}

func refOf(id []byte) holdfast.Ref { return holdfast.Ref("soft:" + hex.EncodeToString(id)) }

func (b *Backend) check(spec holdfast.KeySpec) error {
	if err := b.Capabilities().CheckSpec(spec); err != nil {
		return err
	}
	if spec.Place != "" {
		return holdfast.Errorf(holdfast.ErrUnsupported, "generate", "there are no places to choose from")
	}
	return nil
}

// Generate makes a key.
func (b *Backend) Generate(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	if err := b.check(spec); err != nil {
		return nil, err
	}
	if spec.Residence == holdfast.Wrapped {
		return b.generateWrapped(ctx, spec)
	}
	spec, ref, err := b.Plan(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := b.enter(ctx, "generate"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if _, taken := b.device.Keys[ref]; taken {
		return nil, &holdfast.Error{Op: "generate", Ref: ref, Code: holdfast.ErrExists}
	}
	if len(b.device.Keys) >= b.cfg.Slots {
		return nil, holdfast.Errorf(holdfast.ErrBusy, "generate", "the device is full")
	}
	m, err := newMaterial(spec)
	if err != nil {
		return nil, err
	}
	b.device.Keys[ref] = m
	if err := b.save(); err != nil {
		delete(b.device.Keys, ref)
		return nil, err
	}
	return b.key(ref, m, nil)
}

// Key finds a resident key.
func (b *Backend) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	if !strings.HasPrefix(string(ref), "soft:") {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "find", "%q is no reference to a software key", ref)
	}
	if err := b.enter(ctx, "find"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	m, ok := b.device.Keys[ref]
	if !ok {
		return nil, &holdfast.Error{Op: "find", Ref: ref, Code: holdfast.ErrNotFound}
	}
	return b.key(ref, m, nil)
}

// Keys lists the resident keys.
func (b *Backend) Keys(ctx context.Context) iter.Seq2[holdfast.Key, error] {
	return func(yield func(holdfast.Key, error) bool) {
		if err := b.enter(ctx, "list"); err != nil {
			yield(nil, err)
			return
		}
		refs := slices.Sorted(maps.Keys(b.device.Keys))
		b.mu.Unlock()
		for _, ref := range refs {
			k, err := b.Key(ctx, ref)
			if errors.Is(err, holdfast.ErrNotFound) {
				continue
			}
			if !yield(k, err) {
				return
			}
		}
	}
}

// Destroy forgets a resident key.
func (b *Backend) Destroy(ctx context.Context, ref holdfast.Ref) error {
	if err := b.enter(ctx, "destroy"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	m, ok := b.device.Keys[ref]
	if !ok {
		return &holdfast.Error{Op: "destroy", Ref: ref, Code: holdfast.ErrNotFound}
	}
	delete(b.device.Keys, ref)
	if err := b.save(); err != nil {
		b.device.Keys[ref] = m
		return err
	}
	return nil
}

// Unlock tries pin.
func (b *Backend) Unlock(ctx context.Context, pin holdfast.Secret) error {
	if pin.Len() == 0 {
		return holdfast.Errorf(holdfast.ErrInvalid, "unlock", "the PIN is empty")
	}
	if err := b.enter(ctx, "unlock"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	return b.login(ctx, string(pin.Bytes()))
}

// PINStatus tells nothing of interest.
func (b *Backend) PINStatus(ctx context.Context) (holdfast.PINStatus, error) {
	if err := b.enter(ctx, "PIN status"); err != nil {
		return holdfast.PINStatus{}, err
	}
	defer b.mu.Unlock()
	return holdfast.PINStatus{Retries: 3}, nil
}

// Probe succeeds unless a fault is injected.
func (b *Backend) Probe(ctx context.Context) error {
	if err := b.enter(ctx, "probe"); err != nil {
		return err
	}
	b.mu.Unlock()
	return nil
}

// Close closes the backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// String keeps private keys out of test logs.
func (m material) String() string { return fmt.Sprintf("%s key %q", m.Algorithm, m.Label) }
