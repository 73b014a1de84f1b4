package custody

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"holdfast"
	"holdfast/custody/store"
	"holdfast/internal/softkey"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// fixture is a service with one software device called "soft" that survives reopening.
type fixture struct {
	dir     string
	store   *store.Store
	service *Service
	logs    *observer.ObservedLogs
	faults  atomic.Pointer[func(op string) error] // of the device
	opens   atomic.Int64                          // how often the device was opened
	openErr atomic.Pointer[error]                 // what opening it fails with
	closed  bool
	adjust  func(*Config)
	step    func(string)
	list    func() []holdfast.Ref // the keys of the device, when it is not the software device
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	f.start(t)
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *fixture) start(t testing.TB) {
	t.Helper()
	var err error
	if f.store, err = store.Open(t.Context(), filepath.Join(f.dir, "state")); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	f.logs = logs
	cfg := Config{
		Store:    f.store,
		Backends: []BackendConfig{{Name: "soft", Kind: "softkey", VerifyAfterSign: true, Open: f.open}},
		Logger:   zap.New(core),
	}
	if f.adjust != nil {
		f.adjust(&cfg)
	}
	if f.service, err = newService(t.Context(), cfg, f.step); err != nil {
		t.Fatal(err)
	}
	f.closed = false
}

func (f *fixture) open(ctx context.Context) (holdfast.Backend, error) {
	f.opens.Add(1)
	if err := f.openErr.Load(); err != nil {
		return nil, *err
	}
	return softkey.Open(ctx, softkey.Config{File: filepath.Join(f.dir, "device.json"), Slots: 100_000, Fault: func(op string) error {
		if fault := f.faults.Load(); fault != nil {
			return (*fault)(op)
		}
		return nil
	}})
}

func (f *fixture) stop(t testing.TB) {
	t.Helper()
	if f.closed {
		return
	}
	f.closed = true
	if err := errors.Join(f.service.Close(), f.store.Close()); err != nil {
		t.Error(err)
	}
}

func (f *fixture) restart(t testing.TB) {
	t.Helper()
	f.stop(t)
	f.start(t)
}

// fail makes the device answer the commands called op with err; nil ends that.
func (f *fixture) fail(op string, err error) {
	if err == nil {
		f.faults.Store(nil)
		return
	}
	fault := func(command string) error {
		if command == op || op == "" {
			return err
		}
		return nil
	}
	f.faults.Store(&fault)
}

// refuse makes opening the device fail with err; nil ends that.
func (f *fixture) refuse(err error) {
	if err == nil {
		f.openErr.Store(nil)
		return
	}
	f.openErr.Store(&err)
}

// gone is what a device that was pulled answers.
func gone() error { return holdfast.Errorf(holdfast.ErrUnavailable, "", "the device was pulled") }

// refs returns the refs of the keys that are on the device.
func (f *fixture) refs(t testing.TB) []holdfast.Ref {
	t.Helper()
	if f.list != nil {
		return f.list()
	}
	b, err := softkey.Open(t.Context(), softkey.Config{File: filepath.Join(f.dir, "device.json")})
	if err != nil {
		t.Fatal(err)
	}
	var refs []holdfast.Ref
	for k, err := range b.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, k.Ref())
	}
	return refs
}

// create makes a key and fails the test if that fails.
func (f *fixture) create(t testing.TB, name string, a holdfast.Algorithm, r holdfast.Residence) Key {
	t.Helper()
	k, err := f.service.CreateKey(t.Context(), request(name, a, r))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(name string, a holdfast.Algorithm, r holdfast.Residence) CreateKeyRequest {
	return CreateKeyRequest{Name: name, Backend: "soft", Algorithm: a, Purpose: PurposesFor(a)[0], Residence: r}
}

// wantCode fails the test when err does not have code.
func wantCode(t testing.TB, what string, err error, code holdfast.Code) {
	t.Helper()
	if err == nil || !errors.Is(err, code) || holdfast.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %q", what, err, code)
	}
}
