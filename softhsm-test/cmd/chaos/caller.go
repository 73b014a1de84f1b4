package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"math/rand/v2"

	"holdfast"
	"holdfast/api/client"
)

// state is what callers know of a key.
type state uint8

// The states. In the middle two the caller was given no answer.
const (
	absent     state = iota // never made, or acknowledged to be destroyed
	creating                // asked for, not acknowledged
	destroying              // asked to be destroyed, not acknowledged
	present                 // acknowledged to be made
)

// key is one name and what its caller knows of it.
type key struct {
	kind
	name   string
	state  state
	public crypto.PublicKey // as acknowledged; nil for a secret key
	ref    holdfast.Ref     // as acknowledged

	// handle is the key through the daemon that runs now.
	handle holdfast.Key
}

// caller makes, uses and destroys keys of its own, one act after another.
type caller struct {
	rng      *rand.Rand
	keys     []*key
	backends map[string]holdfast.Backend // of the daemon that runs now
	counts   counts
}

// counts are what callers did.
type counts struct {
	created, destroyed, used int // acknowledged
	interrupted              int // acts that were never answered
}

// keysPerCaller is how many names a caller has: few, so that names are used again and again.
const keysPerCaller = 6

func newCaller(id int, kinds []kind, seed uint64) *caller {
	c := &caller{rng: rand.New(rand.NewPCG(seed, uint64(id)))}
	for i := range keysPerCaller {
		c.keys = append(c.keys, &key{kind: kinds[i%len(kinds)], name: fmt.Sprintf("caller %d key %d", id, i)})
	}
	return c
}

// connect gives the caller the backends of a new daemon.
func (c *caller) connect(ctx context.Context, daemon *client.Client) error {
	c.backends = map[string]holdfast.Backend{}
	for _, k := range c.keys {
		k.handle = nil
		if c.backends[k.backend] != nil {
			continue
		}
		b, err := daemon.Backend(ctx, k.backend, nil)
		if err != nil {
			return err
		}
		c.backends[k.backend] = b
	}
	return nil
}

// run acts until an act fails, and returns what it failed with. began is called before each act.
func (c *caller) run(ctx context.Context, began func()) error {
	for {
		k := c.keys[c.rng.IntN(len(c.keys))]
		began()
		var err error
		switch {
		case k.state == absent:
			err = c.create(ctx, k)
		case c.rng.IntN(3) == 0:
			err = c.destroy(ctx, k)
		default:
			err = c.use(ctx, k)
		}
		if err != nil {
			return fmt.Errorf("%s (%s %s %s): %w", k.name, k.backend, k.residence, k.algorithm, err)
		}
	}
}

func (c *caller) create(ctx context.Context, k *key) error {
	k.state = creating
	spec := holdfast.KeySpec{Label: k.name, Algorithm: k.algorithm, Residence: k.residence}
	made, err := c.backends[k.backend].Generate(ctx, spec)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	k.state, k.handle, k.public, k.ref = present, made, made.Public(), made.Ref()
	c.counts.created++
	return nil
}

func (c *caller) destroy(ctx context.Context, k *key) error {
	d, ok := holdfast.As[holdfast.Destroyer](c.backends[k.backend])
	if !ok {
		return errors.New("the backend destroys nothing")
	}
	k.state = destroying
	if err := d.Destroy(ctx, k.ref); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	k.state, k.handle = absent, nil
	c.counts.destroyed++
	return nil
}

// use makes one signature and verifies it, or encrypts and decrypts.
func (c *caller) use(ctx context.Context, k *key) error {
	if k.handle == nil {
		found, err := c.backends[k.backend].Key(ctx, k.ref)
		if err != nil {
			return fmt.Errorf("find: %w", err)
		}
		k.handle = found
	}
	text := []byte(k.name)
	if k.algorithm.Use() == holdfast.UseEncrypt {
		if err := roundTrip(ctx, k.handle, text); err != nil {
			return err
		}
		c.counts.used++
		return nil
	}
	digest := k.algorithm.Digest(text)
	signature, err := k.handle.Sign(ctx, digest, nil)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if err := holdfast.Verify(k.algorithm, k.public, digest, signature); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	c.counts.used++
	return nil
}

func roundTrip(ctx context.Context, k holdfast.Key, text []byte) error {
	e, ok := holdfast.As[holdfast.Encrypter](k)
	if !ok {
		return errors.New("the key encrypts nothing")
	}
	ciphertext, err := e.Encrypt(ctx, text, nil)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	back, err := e.Decrypt(ctx, ciphertext, nil)
	if err != nil {
		return fmt.Errorf("decrypt: %w", err)
	}
	if !bytes.Equal(back, text) {
		return errors.New("decrypting returned another text")
	}
	return nil
}
