//go:build cgo && !nopiv

package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// factoryManagementKey is the one every such card is sold with.
func factoryManagementKey() []byte { return bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 3) }

// managementKey returns a management key that the card accepts, rotated away from the factory's if that is wanted. Keys
// that may be the right one are simply tried: these cards do not count wrong management keys.
func (b *Backend) managementKey(ctx context.Context, s *session) ([]byte, error) {
	if b.key != nil {
		if ok, err := tryManagementKey(s, b.key); ok || err != nil {
			return b.key, err
		}
	}
	key, err := b.findManagementKey(ctx, s)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(key, factoryManagementKey()) && b.cfg.RotateManagementKey != RotateNever {
		if key, err = b.rotate(ctx, s, key); err != nil {
			return nil, fmt.Errorf("replace the factory management key: %w", err)
		}
	}
	b.key = bytes.Clone(key)
	return b.key, nil
}

// findManagementKey tries the keys in the store, the one on the card, and the factory's.
func (b *Backend) findManagementKey(ctx context.Context, s *session) ([]byte, error) {
	name := ManagementKeyName(b.serial)
	for _, stored := range []string{name, name + "-next"} {
		key, err := b.loadSecret(ctx, stored)
		if err != nil {
			return nil, err
		}
		if ok, err := tryManagementKey(s, key); err != nil {
			return nil, err
		} else if ok {
			return key, b.promote(ctx, stored, key)
		}
	}
	factory := factoryManagementKey()
	if ok, err := tryManagementKey(s, factory); ok || err != nil {
		return factory, err
	}
	if b.cfg.ManagementKey == ManagementKeyOnCard {
		metadata, err := b.protectedMetadata(ctx, s)
		if err != nil {
			return nil, err
		}
		if metadata.ManagementKey != nil {
			if ok, err := tryManagementKey(s, *metadata.ManagementKey); ok || err != nil {
				return *metadata.ManagementKey, err
			}
		}
	}
	return nil, holdfast.Errorf(holdfast.ErrAuth, "",
		"the card's management key is none that is known here: put it into the secret store as %q, or reset the card", name)
}

func (b *Backend) loadSecret(ctx context.Context, name string) ([]byte, error) {
	if b.cfg.Secrets == nil {
		return nil, nil
	}
	secret, ok, err := b.cfg.Secrets.LoadSecret(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("load the management key: %w", err)
	}
	if !ok {
		return nil, nil
	}
	return secret.Bytes(), nil
}

func (b *Backend) storeSecret(ctx context.Context, name string, key []byte) error {
	// The store owns what it is given, and may wipe it.
	if err := b.cfg.Secrets.StoreSecret(context.WithoutCancel(ctx), name, holdfast.NewSecret(bytes.Clone(key))); err != nil {
		return fmt.Errorf("store the management key: %w", err)
	}
	return nil
}

// promote finishes a rotation that was interrupted after the card had taken the new key.
func (b *Backend) promote(ctx context.Context, stored string, key []byte) error {
	if name := ManagementKeyName(b.serial); stored != name {
		return b.storeSecret(ctx, name, key)
	}
	return nil
}

// tryManagementKey reports whether the card accepts key. piv-go has no call for that; asked to generate a key of no
// algorithm it authenticates, and then fails without sending another command.
func tryManagementKey(s *session, key []byte) (bool, error) {
	if key == nil {
		return false, nil
	}
	_, err := s.yk.GenerateKey(key, piv.SlotAuthentication, piv.Key{})
	switch {
	case err == nil:
		return false, holdfast.Errorf(holdfast.ErrInternal, "", "piv-go generated a key of no algorithm")
	case !strings.HasPrefix(err.Error(), "authenticating with management key"):
		return true, nil
	case gone(err):
		return false, err
	case notOffered(err):
		return false, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the card does not say of what kind its management key is, so nothing can be changed on it: %w", err)
	default:
		return false, nil
	}
}

// protectedMetadata reads the object that the PIN protects.
func (b *Backend) protectedMetadata(ctx context.Context, s *session) (*piv.Metadata, error) {
	if !s.verified {
		if err := b.login(ctx, s); err != nil {
			return nil, err
		}
	}
	pin, err := b.pin(ctx)
	if err != nil {
		return nil, err
	}
	metadata, err := s.yk.Metadata(string(pin.Bytes())) // verifies once more the PIN that was just accepted
	if err != nil {
		return nil, fmt.Errorf("read the management key on the card: %w", err)
	}
	return metadata, nil
}

// rotate replaces the management key old by a random one and returns the one that the card has then. The new key is
// durable before the card gets it: whatever happens in between, the next search finds the right one of the two.
func (b *Backend) rotate(ctx context.Context, s *session, old []byte) ([]byte, error) {
	if b.cfg.ManagementKey == ManagementKeyOnCard {
		return b.rotateOnCard(ctx, s, old)
	}
	sizes := []int{24} // 3DES
	if b.atLeast(5, 4) {
		sizes = []int{32, 24} // AES-256; some cards take AES-192 only
	}
	name := ManagementKeyName(b.serial)
	for _, size := range sizes {
		key := make([]byte, size)
		_, _ = rand.Read(key)
		if err := b.storeSecret(ctx, name+"-next", key); err != nil {
			return nil, err
		}
		s.committed = true
		err := s.yk.SetManagementKey(old, key)
		if err == nil {
			return key, b.storeSecret(ctx, name, key)
		}
		if gone(err) {
			return nil, err
		}
	}
	return old, nil // the card cannot change its key; Health says that it is the factory's
}

// rotateOnCard is rotate for a key that is kept on the card, which takes the place of the secret store.
func (b *Backend) rotateOnCard(ctx context.Context, s *session, old []byte) ([]byte, error) {
	before, err := b.protectedMetadata(ctx, s)
	if err != nil {
		return nil, err
	}
	after := *before // keeps what other programs stored there
	key := make([]byte, 24)
	_, _ = rand.Read(key)
	after.ManagementKey = &key
	s.committed = true
	if err := s.yk.SetMetadata(old, &after); err != nil {
		return nil, err
	}
	err = s.yk.SetManagementKey(old, key)
	if err == nil {
		return key, nil
	}
	if gone(err) {
		return nil, err
	}
	return old, s.yk.SetMetadata(old, before)
}
