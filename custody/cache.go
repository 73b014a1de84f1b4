package custody

import (
	"sync"
	"sync/atomic"
)

// cache keeps the entries of keys that were used lately, so that a use of a known key takes no lock and reads no disk.
// When it is full, an entry goes that was not used since the hand last passed it (the clock algorithm); one that is in
// use never goes.
type cache struct {
	entries sync.Map // name → *entry

	// epoch is one more after each removal. What was read from the store before a removal may be of a key that is gone.
	epoch atomic.Uint64

	mu   sync.Mutex
	ring []*entry // guarded by mu; all entries
	hand int      // guarded by mu
	size int
}

func newCache(size int) *cache { return &cache{size: size, ring: make([]*entry, 0, size)} }

// get returns the entry of the key called name, nil if it is not in the cache.
func (c *cache) get(name string) *entry {
	v, ok := c.entries.Load(name)
	if !ok {
		return nil
	}
	e := v.(*entry)
	if !e.used.Load() { // a store would take the cache line from the other cores
		e.used.Store(true)
	}
	return e
}

// add puts e into the cache and returns the entry that is there now: e, or one that was put there first. It returns nil
// when something was removed since epoch, the value that c.epoch had before e was read from the store.
func (c *cache) add(e *entry, epoch uint64) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch.Load() != epoch {
		return nil
	}
	if first, loaded := c.entries.LoadOrStore(e.key.Name, e); loaded {
		return first.(*entry)
	}
	if len(c.ring) < c.size || !c.replace(e) {
		e.place = len(c.ring)
		c.ring = append(c.ring, e)
	}
	return e
}

// replace gives e the place of an entry that is not in use, and says no when all are. c.mu is held.
func (c *cache) replace(e *entry) bool {
	for range 3 * len(c.ring) { // twice around finds one unless all are in use
		victim := c.ring[c.hand]
		c.hand = (c.hand + 1) % len(c.ring)
		if victim.used.Swap(false) || !victim.gate.retire() {
			continue
		}
		c.entries.Delete(victim.key.Name)
		e.place = victim.place
		c.ring[e.place] = e
		return true
	}
	return false
}

// remove takes e out of the cache. What was read from the store before it returns is not put into the cache any more.
func (c *cache) remove(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(e)
}

// forget removes the entry of the key called name, if there is one, and keeps out what was read before as remove does.
func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.get(name); e != nil {
		c.drop(e)
		return
	}
	c.epoch.Add(1)
}

// drop is remove while c.mu is held.
func (c *cache) drop(e *entry) {
	c.epoch.Add(1)
	if !c.entries.CompareAndDelete(e.key.Name, e) {
		return
	}
	last := c.ring[len(c.ring)-1]
	last.place = e.place
	c.ring[e.place] = last
	c.ring[len(c.ring)-1] = nil
	c.ring = c.ring[:len(c.ring)-1]
	if c.hand >= len(c.ring) {
		c.hand = 0
	}
}
