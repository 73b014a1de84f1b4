package custody

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
)

func testEntry(name string) *entry {
	e := &entry{key: Key{Name: name}}
	e.used.Store(true)
	return e
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(10)
	for i := range 10 {
		c.add(testEntry(fmt.Sprint(i)), 0)
	}
	c.add(testEntry("10"), 0) // everything is marked as used: the hand goes around once and takes the first
	for i := range 100 {
		if c.get("5") == nil || c.get("7") == nil {
			t.Fatalf("an entry that is used all the time was dropped after %d others came", i)
		}
		c.add(testEntry(fmt.Sprint("more ", i)), 0)
	}
	there := 0
	c.entries.Range(func(any, any) bool { there++; return true })
	if there != 10 || len(c.ring) != 10 {
		t.Errorf("%d entries, %d in the ring", there, len(c.ring))
	}
}

func TestCacheNeverDropsWhatIsInUse(t *testing.T) {
	c := newCache(4)
	for i := range 4 {
		e := testEntry(fmt.Sprint(i))
		e.gate.enter()
		c.add(e, 0)
	}
	c.add(testEntry("extra"), 0)
	for _, name := range []string{"0", "1", "2", "3", "extra"} {
		if c.get(name) == nil {
			t.Errorf("%s was dropped", name)
		}
	}
}

func TestCacheForgetsWhatWasReadBeforeARemoval(t *testing.T) {
	c := newCache(4)
	old := testEntry("a")
	if c.add(old, 0) != old {
		t.Fatal("not added")
	}
	if second := c.add(testEntry("a"), 0); second != old {
		t.Error("the second entry of a name took the place of the first")
	}
	epoch := c.epoch.Load()
	c.remove(old)
	if c.add(testEntry("a"), epoch) != nil || c.get("a") != nil {
		t.Error("a record that was read before the removal was added after it")
	}
	c.remove(old) // again: nothing happens
	if e := testEntry("a"); c.add(e, c.epoch.Load()) != e || len(c.ring) != 1 {
		t.Error("not added after the removal")
	}
}

func TestGate(t *testing.T) {
	var g gate
	if first, second := g.enter(), g.enter(); !first || !second {
		t.Fatal("an open gate lets nobody in")
	}
	if g.retire() {
		t.Fatal("retired with two inside")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.shut(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !g.enter() {
		t.Fatal("shut after the one who shuts gave up")
	}
	done := make(chan error)
	go func() { done <- g.shut(t.Context()) }()
	for g.n.Load() > 0 { // until it is shut
		runtime.Gosched()
	}
	for range 3 {
		if g.enter() {
			t.Fatal("a shut gate let somebody in")
		}
		select {
		case err := <-done:
			t.Fatalf("shut with somebody inside: %v", err)
		default:
		}
		g.leave()
	}
	if err := <-done; err != nil || g.enter() {
		t.Fatal(err)
	}
}

// TestTurmoil makes, uses, lists and destroys a few names from many goroutines, with a cache that is too small. Whatever
// the order, a signature is one of the key that had the name, and at the end records and device agree.
func TestTurmoil(t *testing.T) {
	f := newFixture(t)
	f.service.cache = newCache(3)
	const names = 8
	var signed, made, destroyed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				name := fmt.Sprint("key ", rand.N(names))
				switch rand.N(6) {
				case 0, 1:
					_, err := f.service.CreateKey(t.Context(),
						request(name, holdfast.EdDSA, holdfast.Residence(1+rand.N(2))))
					count(t, &made, err, holdfast.ErrExists)
				case 2:
					count(t, &destroyed, f.service.DestroyKey(t.Context(), name), holdfast.ErrNotFound,
						holdfast.ErrBusy)
				case 3:
					if _, _, err := f.service.Keys(t.Context(), ListOptions{}); err != nil {
						t.Error(err)
					}
				default:
					_, err := f.service.Sign(t.Context(), name, []byte(name)) // verified by the service
					count(t, &signed, err, holdfast.ErrNotFound, holdfast.ErrState)
				}
			}
		})
	}
	wg.Wait()
	if signed.Load() == 0 || made.Load() == 0 || destroyed.Load() == 0 {
		t.Errorf("%d signed, %d made, %d destroyed", signed.Load(), made.Load(), destroyed.Load())
	}
	if int64(f.store.Count("soft")) != made.Load()-destroyed.Load() {
		t.Errorf("%d records after %d were made and %d destroyed", f.store.Count("soft"), made.Load(), destroyed.Load())
	}
	f.restart(t)
	keys, _, err := f.service.Keys(t.Context(), ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, k := range keys {
		want[k.Name] = true
	}
	f.checkWhole(t, want)
}

// count counts a success and fails the test for an error that is none of the expected codes.
func count(t *testing.T, n *atomic.Int64, err error, expected ...holdfast.Code) {
	if err == nil {
		n.Add(1)
		return
	}
	for _, code := range expected {
		if errors.Is(err, code) {
			return
		}
	}
	t.Error(err)
}

// TestDestroyAnEvictedEntry destroys a key whose entry goes out of the cache after it was found: while the backend is
// being opened, for instance, and others use many keys.
func TestDestroyAnEvictedEntry(t *testing.T) {
	f := newFixture(t)
	key := f.create(t, "victim", holdfast.ES256, holdfast.Resident)
	e, err := f.service.find(t.Context(), "victim")
	if err != nil {
		t.Fatal(err)
	}
	e.gate.retire() // as replace does
	f.service.cache.remove(e)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // ends the test where it used to wait for ever
	defer cancel()
	if err := f.service.destroyResident(ctx, e); err != nil {
		t.Fatal(err)
	}
	if _, err := f.service.Sign(t.Context(), "victim", make([]byte, 32)); !errors.Is(err, holdfast.ErrNotFound) {
		t.Fatalf("the destroyed key: %v", err)
	}
	if there := f.refs(t); slices.Contains(there, key.Ref) {
		t.Fatal("the key is still on the device")
	}
}

func TestCacheForgetsByName(t *testing.T) {
	c := newCache(2)
	e := c.add(testEntry("a"), 0)
	epoch := c.epoch.Load()
	c.forget("b") // not there, yet what was read of it must not come in
	if c.add(testEntry("b"), epoch) != nil {
		t.Error("a record that was read before it was forgotten was added after it")
	}
	if c.get("a") != e {
		t.Error("another entry was forgotten")
	}
	c.forget("a")
	if c.get("a") != nil || len(c.ring) != 0 {
		t.Error("not forgotten")
	}
}
