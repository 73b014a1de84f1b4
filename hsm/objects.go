//go:build cgo && !nopkcs11

package hsm

import (
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// object is what is remembered of an object on the token.
type object struct {
	handle pkcs11.ObjectHandle
	class  uint
	id     string // CKA_ID
	label  string // CKA_LABEL
}

// registry knows the handles of the keys on the token. It is filled by one enumeration: C_FindObjects takes SoftHSM2
// 0.4 s on a token of 10,000 keys.
type registry struct {
	mu      sync.Mutex
	loaded  bool     // guarded by mu
	objects []object // guarded by mu

	// generation changes when handles known so far are no longer to be trusted.
	generation atomic.Uint64
}

// Labels of the objects that Holdfast keeps for itself. They are not keys to anybody else.
const (
	kekLabel      = "holdfast wrapping key"
	macLabel      = "holdfast wrapping key authentication"
	attestorLabel = "holdfast attestation"
)

func reserved(label string) bool {
	return label == kekLabel || label == macLabel || label == attestorLabel
}

// keyClasses are the classes of objects that the registry holds.
var keyClasses = [...]uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_CERTIFICATE}

// enumerate reads the token's objects anew.
func (s *session) enumerate() ([]object, error) {
	if err := s.checkLogin(); err != nil {
		return nil, err
	}
	var all []object
	for _, class := range keyClasses {
		handles, err := s.find(attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_CLASS, class))
		if err != nil {
			return nil, err
		}
		for _, h := range handles {
			o, err := s.identify(h, class)
			if returned(err, handleValues[:]...) {
				continue // another program destroyed it in between
			}
			if err != nil {
				return nil, err
			}
			all = append(all, o)
		}
	}
	r := &s.c.objects
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded, r.objects = true, all
	return all, nil
}

func (s *session) identify(h pkcs11.ObjectHandle, class uint) (object, error) {
	values, err := s.read(h, pkcs11.CKA_ID, pkcs11.CKA_LABEL)
	if returned(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE) {
		err = nil // it has neither
	}
	return object{h, class, string(values[pkcs11.CKA_ID]), string(values[pkcs11.CKA_LABEL])}, err
}

// known returns the objects of the registry, which it fills first if need be.
func (s *session) known() ([]object, error) {
	r := &s.c.objects
	r.mu.Lock()
	loaded, objects := r.loaded, r.objects
	r.mu.Unlock()
	if loaded {
		return objects, nil
	}
	return s.enumerate()
}

// add puts new objects into the registry.
func (r *registry) add(objects ...object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		return
	}
	// Readers hold slices of the old array; append never changes what they see.
	r.objects = append(r.objects[:len(r.objects):len(r.objects)], objects...)
}

// remove takes objects with the handles out of the registry.
func (r *registry) remove(handles ...pkcs11.ObjectHandle) {
	gone := make(map[pkcs11.ObjectHandle]bool, len(handles))
	for _, h := range handles {
		gone[h] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make([]object, 0, len(r.objects))
	for _, o := range r.objects {
		if !gone[o.handle] {
			kept = append(kept, o)
		}
	}
	r.objects = kept
}

// forget makes everything that remembers handles look again.
func (c *connection) forget() {
	c.objects.mu.Lock()
	c.objects.loaded, c.objects.objects = false, nil
	c.objects.mu.Unlock()
	c.objects.generation.Add(1)
	c.unwrapped.forget()
	c.wrapping.forget()
}

// selector selects objects as a ref does: a nil field selects all.
type selector struct {
	id    *string
	label *string
	class uint // 0 for all
}

// selectorOf returns the selector in a ref. The ref's class, if it has one, has to be one that a key may have.
func selectorOf(u uri) selector {
	var sel selector
	if id, ok := u["id"]; ok {
		sel.id = &id
	}
	if label, ok := u["object"]; ok {
		sel.label = &label
	}
	if u["type"] == "secret-key" {
		sel.class = pkcs11.CKO_SECRET_KEY
	}
	return sel
}

func (sel selector) matches(o object) bool {
	return (sel.id == nil || *sel.id == o.id) && (sel.label == nil || *sel.label == o.label) &&
		(sel.class == 0 || sel.class == o.class)
}

// template returns the selector as a template for C_FindObjects.
func (sel selector) template() []*pkcs11.Attribute {
	list := []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true)}
	if sel.id != nil {
		list = append(list, attr(pkcs11.CKA_ID, *sel.id))
	}
	if sel.label != nil {
		list = append(list, attr(pkcs11.CKA_LABEL, *sel.label))
	}
	if sel.class != 0 {
		list = append(list, attr(pkcs11.CKA_CLASS, sel.class))
	}
	return list
}

// secretHalf reports whether an object of class is what a key is used by.
func secretHalf(class uint) bool {
	return class == pkcs11.CKO_PRIVATE_KEY || class == pkcs11.CKO_SECRET_KEY
}

// choose returns the objects that sel selects. What the registry does not have is searched for on the token: another
// program may have made it.
func (s *session) choose(sel selector) ([]object, error) {
	objects, err := s.known()
	if err != nil {
		return nil, err
	}
	found := filter(objects, sel)
	if anyKey(found) {
		return found, nil
	}
	if err := s.checkLogin(); err != nil {
		return nil, err
	}
	handles, err := s.find(sel.template()...)
	if err != nil || len(handles) == 0 || len(handles) == len(found) {
		return found, err
	}
	if objects, err = s.enumerate(); err != nil {
		return nil, err
	}
	return filter(objects, sel), nil
}

func filter(objects []object, sel selector) []object {
	var out []object
	for _, o := range objects {
		if sel.matches(o) {
			out = append(out, o)
		}
	}
	return out
}

func anyKey(objects []object) bool {
	for _, o := range objects {
		if secretHalf(o.class) {
			return true
		}
	}
	return false
}

// one returns the one private or secret key among objects: ErrNotFound for none, ErrInvalid for several.
func one(objects []object) (object, error) {
	var keys []object
	for _, o := range objects {
		if secretHalf(o.class) {
			keys = append(keys, o)
		}
	}
	switch len(keys) {
	case 0:
		return object{}, holdfast.Errorf(holdfast.ErrNotFound, "", "there is no such key on the token")
	case 1:
		return keys[0], nil
	}
	return object{}, holdfast.Errorf(holdfast.ErrInvalid, "",
		"%d keys on the token match: give a ref with both id and object that matches one only", len(keys))
}
