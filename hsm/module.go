//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// Modules are the PKCS#11 modules that one process has loaded. C_Initialize and C_Finalize are for a whole process and
// end the sessions of everybody in it, so all backends of a process that may use the same module share one Modules.
type Modules struct {
	mu     sync.Mutex
	loaded map[string]*module // by real path; guarded by mu
}

// NewModules returns an empty Modules.
func NewModules() *Modules { return &Modules{loaded: map[string]*module{}} }

// module is one loaded PKCS#11 module.
type module struct {
	path string
	init string
	env  map[string]string
	p11  *pkcs11.Ctx

	direct *direct // some functions of p11 with fewer calls; nil where there are none. Guarded by gate

	// gate is held for reading during every call into the module and for writing while it is finalized: PKCS#11 leaves
	// undefined what becomes of calls during C_Finalize, and SoftHSM2 crashes.
	gate  sync.RWMutex
	epoch uint64 // counts initializations; guarded by gate. Handles of an earlier epoch may name other objects now

	// stuck counts calls that nobody waits for any more because they took too long. While there are any, no more calls
	// are made: a module whose device does not answer blocks all its callers.
	stuck atomic.Int32

	users int  // guarded by Modules.mu
	owned bool // C_Initialize was ours, so C_Finalize is; guarded by Modules.mu
}

var (
	errStuck = holdfast.Errorf(holdfast.ErrUnavailable, "",
		"the token did not answer in time; an earlier call is still waiting for it")
	errExpired = errors.New("the session was closed")
)

// acquire returns the initialized module that cfg names, loading it if need be. Each call is paired with one of release.
func (m *Modules) acquire(cfg Config) (*module, error) {
	path := cfg.Module
	if real, err := filepath.EvalSymlinks(path); err == nil && strings.Contains(path, "/") {
		path = real
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mod := m.loaded[path]
	if mod != nil && mod.users > 0 {
		if mod.init != cfg.InitString || !maps.Equal(mod.env, cfg.Environment) {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "open",
				"the module %s is in use with another environment or initialization string, and a process can give it one only; "+
					"use a second process", cfg.Module)
		}
		mod.users++
		return mod, nil
	}
	if mod != nil && mod.stuck.Load() > 0 {
		return nil, failure("open", "", errStuck)
	}
	// Some modules (p11-kit-client) read their environment in C_GetFunctionList, others in C_Initialize.
	for name, value := range cfg.Environment {
		if err := os.Setenv(name, value); err != nil {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "open", "set %s for the module: %w", name, err)
		}
	}
	p11 := pkcs11.New(cfg.Module)
	if p11 == nil {
		return nil, notALibrary(cfg.Module)
	}
	if mod == nil {
		mod = &module{path: path}
		m.loaded[path] = mod
	}
	mod.replace(p11)
	mod.init, mod.env = cfg.InitString, maps.Clone(cfg.Environment)
	err := mod.call(cfg.CallTimeout, func() error {
		mod.gate.Lock()
		defer mod.gate.Unlock()
		mod.epoch++
		err := mod.initialize()
		if err == nil || returned(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			mod.direct = newDirect(cfg.Module)
		}
		return err
	})
	if err != nil && !returned(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return nil, failure("open", "", fmt.Errorf("C_Initialize of %s: %w", cfg.Module, err))
	}
	mod.owned = err == nil
	mod.users = 1
	return mod, nil
}

// replace takes p11 for further calls. The library stays loaded: SoftHSM2 and OpenSSL do not survive being unloaded and
// loaded again.
func (m *module) replace(p11 *pkcs11.Ctx) {
	m.gate.Lock()
	defer m.gate.Unlock()
	if m.p11 != nil {
		m.p11.Destroy() // gives back one of two references to the library
	}
	m.p11, m.direct = p11, nil
}

func notALibrary(path string) error {
	if _, err := os.Stat(path); err != nil && strings.Contains(path, "/") {
		return holdfast.Errorf(holdfast.ErrInvalid, "open",
			"there is no PKCS#11 module at %s (%w); check the path, or install the module", path, err)
	}
	return holdfast.Errorf(holdfast.ErrInvalid, "open",
		"%s is not a PKCS#11 module: it cannot be loaded as a shared library with C_GetFunctionList", path)
}

// release ends one use of mod; the last one finalizes it.
func (m *Modules) release(mod *module, limit time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	mod.users--
	if mod.users > 0 || !mod.owned {
		return nil
	}
	mod.owned = false
	err := mod.call(limit, func() error {
		mod.gate.Lock()
		defer mod.gate.Unlock()
		mod.epoch++
		return mod.p11.Finalize()
	})
	if err == nil || returned(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return nil
	}
	return failure("close", "", fmt.Errorf("C_Finalize of %s: %w", mod.path, err))
}

// sole reports whether mod has one user and was initialized here, so that finalizing it disturbs nobody.
func (m *Modules) sole(mod *module) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return mod.users == 1 && mod.owned
}

// owns reports whether mod was initialized here, so that it may be finalized here.
func (m *Modules) owns(mod *module) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return mod.owned
}

// initialize calls C_Initialize. gate is held for writing.
func (m *module) initialize() error {
	if m.init == "" {
		return m.p11.Initialize()
	}
	// The standard reserves pReserved; NSS reads a C string there.
	reserved := append([]byte(m.init), 0)
	err := m.p11.Initialize(pkcs11.InitializeWithFlags(pkcs11.CKF_OS_LOCKING_OK),
		pkcs11.InitializeWithReserved(unsafe.Pointer(&reserved[0])))
	runtime.KeepAlive(reserved)
	return err
}

// reinitialize finalizes and initializes the module unless somebody did since epoch. It is the only way to make some
// modules notice that their device came back. It waits for calls in flight, up to limit, and returns ErrUnavailable if
// they do not end.
func (m *module) reinitialize(ctx context.Context, epoch uint64, limit time.Duration) error {
	return m.call(2*limit, func() error {
		if err := m.lockGate(ctx, limit); err != nil {
			return err
		}
		defer m.gate.Unlock()
		if m.epoch != epoch {
			return nil
		}
		_ = m.p11.Finalize() // it may have lost its state already, which is why we are here
		m.epoch++
		if err := m.initialize(); err != nil {
			return fmt.Errorf("C_Initialize of %s: %w", m.path, err)
		}
		return nil
	})
}

// lockGate locks the gate for writing without making new readers queue behind a call that may never end.
func (m *module) lockGate(ctx context.Context, limit time.Duration) error {
	const pause = 2 * time.Millisecond
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for !m.gate.TryLock() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return errStuck
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// enter lets the caller call into the module until leave. It reports false, and there is nothing to leave, when the
// module was initialized anew since epoch.
func (m *module) enter(epoch uint64) bool {
	m.gate.RLock()
	if m.epoch != epoch {
		m.gate.RUnlock()
		return false
	}
	return true
}

func (m *module) leave() { m.gate.RUnlock() }

// now returns the current epoch.
func (m *module) now() uint64 {
	m.gate.RLock()
	defer m.gate.RUnlock()
	return m.epoch
}

// watch lets one goroutine give up waiting for another. Exactly one of the two learns that it was second.
type watch struct{ over atomic.Bool }

// end is called by either side; it reports whether this was the first call.
func (w *watch) end() bool { return w.over.CompareAndSwap(false, true) }

// call runs op, which calls into the module, and waits for it up to limit. After that op goes on alone, and until it
// ends all calls fail with errStuck. op must clean up after itself when it was given up, which it learns by the error of
// the next call it makes or never.
func (m *module) call(limit time.Duration, op func() error) error {
	if m.stuck.Load() > 0 {
		return errStuck
	}
	var w watch
	done := make(chan error, 1)
	go func() {
		err := op()
		if !w.end() {
			m.stuck.Add(-1)
		}
		done <- err
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return m.giveUp(&w, done)
	}
}

// giveUp stops waiting for a call that ends with w and done.
func (m *module) giveUp(w *watch, done <-chan error) error {
	m.stuck.Add(1)
	if w.end() {
		return errStuck
	}
	m.stuck.Add(-1)
	return <-done
}
