//go:build cgo && !nopkcs11

package hsm

import (
	"container/list"
	"sync"

	"github.com/miekg/pkcs11"
)

// cache keeps unwrapped keys as session objects, those used last. An object is destroyed when it has been evicted and
// nobody uses it any more.
type cache struct {
	max int

	mu      sync.Mutex
	entries map[string]*list.Element // guarded by mu; values are *unwrapped
	order   *list.List               // guarded by mu; the one used last is in front
}

// unwrapped is one unwrapped key.
type unwrapped struct {
	name    string
	handle  pkcs11.ObjectHandle
	users   int  // guarded by cache.mu
	evicted bool // guarded by cache.mu
}

func newCache(max int) *cache {
	return &cache{max: max, entries: map[string]*list.Element{}, order: list.New()}
}

// acquire returns the entry called name, to be released after use, or nil.
func (c *cache) acquire(name string) *unwrapped {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[name]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	u := e.Value.(*unwrapped)
	u.users++
	return u
}

// put adds an entry, to be released after use. It returns the handles of objects that the caller has to destroy: evicted
// ones, or h itself where another session was faster to unwrap the same key.
func (c *cache) put(name string, h pkcs11.ObjectHandle) (*unwrapped, []pkcs11.ObjectHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[name]; ok {
		u := e.Value.(*unwrapped)
		u.users++
		return u, []pkcs11.ObjectHandle{h}
	}
	u := &unwrapped{name: name, handle: h, users: 1}
	c.entries[name] = c.order.PushFront(u)
	var doomed []pkcs11.ObjectHandle
	for c.order.Len() > c.max {
		if last := c.evict(c.order.Back()); last.users == 0 {
			doomed = append(doomed, last.handle)
		}
	}
	return u, doomed
}

// evict takes an entry out. mu is held.
func (c *cache) evict(e *list.Element) *unwrapped {
	u := c.order.Remove(e).(*unwrapped)
	delete(c.entries, u.name)
	u.evicted = true
	return u
}

// release ends one use of an entry. It reports whether the caller has to destroy the object.
func (c *cache) release(u *unwrapped) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u.users--
	return u.evicted && u.users == 0
}

// forget takes all entries out; what becomes of their objects is up to their users.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() > 0 {
		c.evict(c.order.Back())
	}
}
