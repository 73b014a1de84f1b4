//go:build cgo && !nopiv

package token

import (
	"context"
	"crypto"
	"fmt"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// Destroy destroys the key that ref names, which has to have all its parts. PIV has no command for that: the key is
// overwritten in its slot by a fresh one that is never used, and the certificate by one that says so. A half-made key,
// and a destruction that was interrupted, are cleaned the same way. It returns ErrIntegrity, and changes nothing, when
// the slot holds something else.
func (b *Backend) Destroy(ctx context.Context, ref holdfast.Ref) error {
	a, err := parseRef(ref)
	if err == nil && (!a.hasSerial || !a.hasID || a.place == "") {
		err = invalidRef(ref, "to destroy a key, its serial, slot and id are needed")
	}
	if err == nil && a.serial != b.serial {
		err = invalidRef(ref, fmt.Sprintf("it is of another card than this one (serial %d)", b.serial))
	}
	if err != nil {
		return translate("destroy", ref, err)
	}
	return b.do(ctx, "destroy", ref, func(s *session) error {
		c, err := b.readSlot(s, a.place)
		if err != nil {
			return err
		}
		if err := b.checkDestroyable(c, a.id); err != nil {
			return err
		}
		managementKey, err := b.managementKey(ctx, s)
		if err != nil {
			return err
		}
		if err := b.scrub(s, managementKey, c, a.id, c.public); err != nil {
			return err
		}
		delete(b.nonces, ref)
		return nil
	})
}

// checkDestroyable says whether slot c holds the key called id, or half of it.
func (b *Backend) checkDestroyable(c content, id keyID) error {
	switch c.mark.role {
	case roleHalfMade, roleKey:
		if c.mark.id != id {
			return errOther(c)
		}
		if c.mark.role == roleKey && c.key != absent && !c.holdsMarked() {
			return errReplaced("")
		}
		return nil
	}
	if c.free() || c.missing {
		return holdfast.Errorf(holdfast.ErrNotFound, "", "slot %s holds no key", c.place)
	}
	k, err := b.foreignKey(c)
	if err != nil || k.ref != canonical(b.serial, c.place, id) {
		return errOther(c)
	}
	return nil
}

func errOther(c content) error {
	return holdfast.Errorf(holdfast.ErrIntegrity, "", "slot %s now holds something else, which is left alone", c.place)
}

// scrub overwrites the key in a slot and marks the slot as free. old is the key that was there, nil where the card does
// not tell. The mark that comes first makes an interruption visible.
func (b *Backend) scrub(s *session, managementKey []byte, c content, id keyID, old crypto.PublicKey) error {
	if err := writeMark(s, managementKey, c.slot, mark{role: roleHalfMade, id: id}); err != nil {
		return err
	}
	fresh, err := s.yk.GenerateKey(managementKey, c.slot, piv.Key{
		Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyAlways, TouchPolicy: piv.TouchPolicyNever,
	})
	if err != nil {
		return fmt.Errorf("overwrite the key: %w", err)
	}
	now := content{place: c.place, slot: c.slot}
	if err := b.readKey(s, &now); err != nil {
		return err
	}
	if old != nil && samePublic(fresh, old) || now.public != nil && !samePublic(now.public, fresh) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the card still has the key that was overwritten; destroy the card")
	}
	return writeMark(s, managementKey, c.slot, mark{role: roleDestroyed, id: id})
}
