//go:build cgo && !nopiv

package token

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"holdfast"
)

// Key returns the key that ref names. A ref without all its parts finds the one key it fits: piv:slot=9c adopts a key
// that another program made. Such a key's id is the first half of the SHA-256 of its SubjectPublicKeyInfo, so that its
// ref fits no other.
func (b *Backend) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	a, err := parseRef(ref)
	if err == nil && a.hasSerial && a.serial != b.serial {
		err = invalidRef(ref, fmt.Sprintf("it is of another card than this one (serial %d)", b.serial))
	}
	if err != nil {
		return nil, translate("find key", ref, err)
	}
	var found []*key
	err = b.do(ctx, "find key", ref, func(s *session) error {
		found, err = b.search(s, a)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, translate("find key", ref, holdfast.Errorf(holdfast.ErrNotFound, "", "no such key on the card"))
	case len(found) > 1:
		return nil, translate("find key", ref, invalidRef(ref, fmt.Sprintf("it fits %s and %s", found[0].ref, found[1].ref)))
	}
	return found[0], nil
}

// search returns the keys that a fits. A slot that cannot be used is an error only when a names it.
func (b *Backend) search(s *session, a address) ([]*key, error) {
	places := b.caps.Places
	if a.place != "" {
		places = []string{a.place}
	}
	var found []*key
	for _, place := range places {
		c, err := b.readSlot(s, place)
		if err != nil {
			return nil, err
		}
		k, err := b.keyOf(c)
		switch {
		case err == nil && a.matches(b.serial, place, idOf(k)):
			found = append(found, k)
		case err != nil && a.place != "" && !notThere(c, a, err):
			return nil, err
		}
	}
	return found, nil
}

// notThere reports whether err, about slot c, means that there is no key such as a names: an empty slot, half a key, or
// trouble with a key of another id.
func notThere(c content, a address, err error) bool {
	return errors.Is(err, holdfast.ErrNotFound) || c.mark.role == roleHalfMade || a.hasID && c.mark.id != a.id
}

// idOf returns the id in a key's own ref.
func idOf(k *key) keyID {
	a, _ := parseRef(k.ref)
	return a.id
}

// Keys lists the keys in all slots. A slot that holds something unusable is yielded as an error: half a key that an
// interruption left (ErrIntegrity, with the Ref to destroy), a key that is not the one its certificate names
// (ErrIntegrity), a key of an unknown kind (ErrUnsupported).
func (b *Backend) Keys(ctx context.Context) iter.Seq2[holdfast.Key, error] {
	return func(yield func(holdfast.Key, error) bool) {
		type item struct {
			key holdfast.Key
			err error
		}
		var items []item
		err := b.do(ctx, "list keys", "", func(s *session) error {
			items = nil
			for _, place := range b.caps.Places {
				c, err := b.readSlot(s, place)
				if err != nil {
					return err
				}
				k, err := b.keyOf(c)
				switch {
				case err == nil:
					items = append(items, item{k, nil})
				case !errors.Is(err, holdfast.ErrNotFound):
					items = append(items, item{nil, translate("list keys", "", err)})
				}
			}
			return nil
		})
		if err != nil {
			yield(nil, err)
			return
		}
		for _, i := range items { // the card is free for others meanwhile
			if !yield(i.key, i.err) {
				return
			}
		}
	}
}
