package tpm

import (
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// slots keeps track of the transient objects that the backend has loaded. A TPM has room for few, three on most; those
// that were not used for the longest time make room for others.
type slots struct {
	capacity int      // objects that fit, less those that are always loaded
	loaded   []loaded // the one used last is at the end
}

type loaded struct {
	id     string // what the object was loaded of
	handle tpm2.TPMHandle
}

// find returns the handle of a loaded object, and notes that it was used.
func (s *slots) find(id string) (tpm2.TPMHandle, bool) {
	i := slices.IndexFunc(s.loaded, func(l loaded) bool { return l.id == id })
	if i < 0 {
		return 0, false
	}
	l := s.loaded[i]
	s.loaded = append(slices.Delete(s.loaded, i, i+1), l)
	return l.handle, true
}

// add notes that an object was loaded.
func (s *slots) add(id string, handle tpm2.TPMHandle) {
	s.loaded = append(s.loaded, loaded{id, handle})
}

// evict takes out objects until there is room for n more, and returns those to flush.
func (s *slots) evict(n int) []loaded {
	out := max(0, len(s.loaded)+n-s.capacity)
	out = min(out, len(s.loaded))
	gone := slices.Clone(s.loaded[:out])
	s.loaded = slices.Delete(s.loaded, 0, out)
	return gone
}
