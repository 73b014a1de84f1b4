// Package keytest is the one conformance suite for everything that offers holdfast.Backend: each driver on its device,
// each decorator, and the daemon's client. Every signature it gets is verified with the standard library.
//
// What ran is the table backend × algorithm × operation of the documentation: a cell is filled only by an operation
// that succeeded here, see [Table].
package keytest

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"holdfast"
)

// Config describes one backend under test.
type Config struct {
	// Name is the backend's column in the table: "softhsm2", "swtpm", "virtual PIV card".
	Name string

	// Open opens the device. It is called several times, always after the backend it returned before was closed, and
	// returns the same device with the same keys each time. The backend is closed by the suite.
	Open func(t *testing.T) holdfast.Backend

	// Algorithms are those the backend must offer, by residence. It may not offer others: a gain is to be written down
	// as well.
	Resident []holdfast.Algorithm
	Wrapped  []holdfast.Algorithm

	// Needs names the optional interfaces the backend and its keys must offer, so that a decorator that hides one fails.
	Needs []Interface

	// Deviations maps the name of a subtest that does not apply to the reason. The subtest is not run.
	Deviations map[string]string
}

// Interface names an optional interface.
type Interface string

// The optional interfaces of a backend and of its keys.
const (
	Destroyer Interface = "Destroyer"
	Planner   Interface = "Planner"
	Loader    Interface = "Loader"
	Sealer    Interface = "Sealer"
	Unlocker  Interface = "Unlocker"
	Prober    Interface = "Prober"
	Agreer    Interface = "Agreer"
	Encrypter Interface = "Encrypter"
	Attester  Interface = "Attester"
)

// suite is one run.
type suite struct {
	Config
	table  *recorder
	labels atomic.Int64
}

// label returns a label that no other key of this run has: a daemon's client needs unique ones.
func (s *suite) label(what string) string {
	return "conformance " + what + " " + strconv.FormatInt(s.labels.Add(1), 10)
}

// Run runs the whole suite.
func Run(t *testing.T, cfg Config) {
	s := &suite{Config: cfg, table: newRecorder(cfg.Name)}
	tests := map[string]func(*testing.T){
		"Capabilities": s.capabilities,
		"Interfaces":   s.interfaces,
		"Decorated":    s.decorated,
		"BadSpec":      s.badSpec,
		"BadRef":       s.badRef,
		"Unsupported":  s.unsupported,
		"Places":       s.places,
		"Plan":         s.plan,
		"Blob":         s.blob,
		"Seal":         s.seal,
		"Concurrent":   s.concurrent,
		"Canceled":     s.canceled,
		"Closed":       s.closed,
		"PIN":          s.pin,
	}
	for _, a := range cfg.Resident {
		tests["Resident/"+string(a)] = func(t *testing.T) { s.lifeOfKey(t, a, holdfast.Resident) }
	}
	for _, a := range cfg.Wrapped {
		tests["Wrapped/"+string(a)] = func(t *testing.T) { s.lifeOfKey(t, a, holdfast.Wrapped) }
	}
	for name := range cfg.Deviations {
		if tests[name] == nil {
			t.Errorf("the deviation %q names no test", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		if reason, ok := cfg.Deviations[name]; ok {
			t.Logf("%s: not run: %s", name, reason)
			continue
		}
		t.Run(name, tests[name])
	}
	if err := s.table.write(); err != nil {
		t.Errorf("write the table: %v", err)
	}
}

// open opens the backend for one subtest and closes it at its end.
func (s *suite) open(t *testing.T) holdfast.Backend {
	t.Helper()
	b := s.Open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// first returns an algorithm with use u that the backend has, and a residence for it.
func (s *suite) first(u holdfast.Use) (holdfast.Algorithm, holdfast.Residence, bool) {
	for _, a := range s.Resident {
		if a.Use() == u {
			return a, holdfast.Resident, true
		}
	}
	for _, a := range s.Wrapped {
		if a.Use() == u {
			return a, holdfast.Wrapped, true
		}
	}
	return "", 0, false
}

func (s *suite) needs(i Interface) bool { return slices.Contains(s.Needs, i) }
