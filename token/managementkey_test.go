//go:build cgo && !nopiv

package token_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast"
	"holdfast/softhsm-test/vpiv"
	"holdfast/token"
)

// TestRotation checks that the factory's management key is replaced by one that is in the store, before the first key.
func TestRotation(t *testing.T) {
	for version, size := range map[[3]byte]int{{5, 7, 1}: 32, {5, 4, 3}: 32, {5, 2, 4}: 24, {4, 3, 7}: 24} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := newBench(t, vpiv.Config{Version: version})
			backend := b.open(b.config())
			health, err := backend.Health(t.Context())
			if err != nil || health.DefaultManagementKey != token.Yes || health.DefaultPIN == token.Yes || health.PINRetries != 3 {
				t.Errorf("health %+v, %v", health, err)
			}
			b.generate(backend, nil)
			key := b.store.value(token.ManagementKeyName(serial))
			if len(key) != size {
				t.Fatalf("a management key of %d bytes was stored", len(key))
			}
			health, err = backend.Health(t.Context())
			if err != nil || health.DefaultManagementKey != token.No {
				t.Errorf("health %+v, %v", health, err)
			}
			b.byAnother(backend, func(yk *piv.YubiKey) error { return yk.SetManagementKey(key, key) })
			b.generate(b.open(b.config()), nil)
			if again := b.store.value(token.ManagementKeyName(serial)); !bytes.Equal(again, key) {
				t.Error("it was rotated twice")
			}
		})
	}
}

// TestInterruptedRotation pulls the card while it gets its new management key.
func TestInterruptedRotation(t *testing.T) {
	for _, place := range []token.ManagementKeyPlace{token.ManagementKeyInStore, token.ManagementKeyOnCard} {
		for _, executed := range []bool{false, true} {
			t.Run(fmt.Sprintf("place=%d,executed=%v", place, executed), func(t *testing.T) {
				interruptRotation(t, place, executed)
			})
		}
	}
}

func interruptRotation(t *testing.T, place token.ManagementKeyPlace, executed bool) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.ManagementKey = place
	backend := b.open(cfg)
	b.card.Inject(vpiv.Fault{INS: insSetManagement, Effect: vpiv.Pull{Executed: executed}})
	_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
	want(t, err, holdfast.ErrUnavailable)
	for range 2 { // the second time with what the first left in the store
		if err := backend.Close(); err != nil {
			t.Fatal(err)
		}
		b.reinsert()
		backend = b.open(cfg)
		b.mustSign(b.generate(backend, nil))
	}
	health, err := backend.Health(t.Context())
	if err != nil || health.DefaultManagementKey != token.No {
		t.Errorf("health %+v, %v", health, err)
	}
}

// TestKeyOnCard checks that the management key on the card is where other programs look for it.
func TestKeyOnCard(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.ManagementKey, cfg.Secrets = token.ManagementKeyOnCard, nil
	backend := b.open(cfg)
	b.generate(backend, nil)
	b.byAnother(backend, func(yk *piv.YubiKey) error {
		metadata, err := yk.Metadata(pin)
		if err != nil {
			return err
		}
		return yk.SetManagementKey(*metadata.ManagementKey, *metadata.ManagementKey)
	})
	b.generate(b.open(cfg), nil)
}

func TestOwnersKey(t *testing.T) {
	own := bytes.Repeat([]byte{7}, 24)
	b := newBench(t, vpiv.Config{ManagementKey: own})
	backend := b.open(b.config())
	_, err := backend.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: holdfast.ES256})
	want(t, err, holdfast.ErrAuth, token.ManagementKeyName(serial))
	if refs, problems := b.list(backend); len(refs)+len(problems) > 0 {
		t.Errorf("left behind: %v, %v", refs, problems)
	}
	if err := b.store.StoreSecret(t.Context(), token.ManagementKeyName(serial), holdfast.NewSecret(bytes.Clone(own))); err != nil {
		t.Fatal(err)
	}
	b.generate(backend, nil)
	if stored := b.store.value(token.ManagementKeyName(serial)); !bytes.Equal(stored, own) {
		t.Error("the owner's key was replaced")
	}
}

func TestRotateNever(t *testing.T) {
	b := newBench(t, vpiv.Config{})
	cfg := b.config()
	cfg.RotateManagementKey, cfg.Secrets = token.RotateNever, nil
	backend := b.open(cfg)
	b.generate(backend, nil)
	b.byAnother(backend, func(yk *piv.YubiKey) error {
		return yk.SetManagementKey(piv.DefaultManagementKey, piv.DefaultManagementKey)
	})
}
