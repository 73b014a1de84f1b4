//go:build cgo && !nopiv

package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// Plan chooses a slot and an identifier. Without KeySpec.Place it takes the first free retired slot (82 to 95), then
// 9a, 9c, 9e, 9d. A slot is free when it holds neither key nor certificate, or what Destroy leaves there. It returns
// ErrBusy when no slot is free, ErrExists when the one named is taken.
func (b *Backend) Plan(ctx context.Context, spec holdfast.KeySpec) (holdfast.KeySpec, holdfast.Ref, error) {
	if spec.Residence == holdfast.Wrapped {
		return spec, "", translate("plan", "", holdfast.Errorf(holdfast.ErrInvalid, "", "a wrapped key has no place to plan"))
	}
	if err := b.check(spec); err != nil {
		return spec, "", translate("plan", "", err)
	}
	var ref holdfast.Ref
	err := b.do(ctx, "plan", "", func(s *session) error {
		c, err := b.plan(s, &spec)
		ref = canonical(b.serial, c.place, keyID(spec.ID))
		b.planned[c.place] = err == nil
		return err
	})
	if err != nil {
		return spec, "", err
	}
	return spec, ref, nil
}

// check says whether the card can make such a key at all.
func (b *Backend) check(spec holdfast.KeySpec) error {
	caps := b.Capabilities()
	if err := caps.CheckSpec(spec); err != nil {
		return err
	}
	if spec.Place == "" {
		return nil
	}
	place, ok := parsePlace(spec.Place)
	if !ok {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "%q is no slot for keys: choose one of %s", spec.Place, placesText)
	}
	if !slices.Contains(caps.Places, place) {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "this card has no slot %s", place)
	}
	return nil
}

// plan fills in Place and ID of a spec that check accepted, and returns the free slot.
func (b *Backend) plan(s *session, spec *holdfast.KeySpec) (content, error) {
	if spec.ID == nil {
		spec.ID = make([]byte, len(keyID{}))
		_, _ = rand.Read(spec.ID)
	}
	if spec.Place == "" {
		c, err := b.choose(s)
		if err == nil {
			spec.Place = c.place
		}
		return c, err
	}
	spec.Place, _ = parsePlace(spec.Place)
	c, err := b.readSlot(s, spec.Place)
	if err == nil && !c.free() {
		err = holdfast.Errorf(holdfast.ErrExists, "", "slot %s is taken; choose another, or leave it to Holdfast", spec.Place)
	}
	return c, err
}

// choose returns the first free slot, one that no other plan was given if there is such.
func (b *Backend) choose(s *session) (content, error) {
	if b.noMetadata && b.noAttest {
		return content{}, holdfast.Errorf(holdfast.ErrInvalid, "",
			"this card cannot say which of its slots are empty: name one")
	}
	var second content
	for _, place := range b.caps.Places {
		if b.planned[place] && second.place != "" {
			continue
		}
		c, err := b.readSlot(s, place)
		if err != nil {
			return c, err
		}
		if !c.free() {
			continue
		}
		if !b.planned[place] {
			return c, nil
		}
		second = c
	}
	if second.place == "" {
		return second, holdfast.Errorf(holdfast.ErrBusy, "", "the card is full: all its slots hold keys or certificates")
	}
	return second, nil
}

// Generate makes a key in a free slot. When something fails after the slot was touched, it is cleaned; when the card is
// gone then, the error says so, Keys reports the slot, and Destroy of the key's ref cleans it.
func (b *Backend) Generate(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	if err := b.check(spec); err != nil {
		return nil, translate("generate", "", err)
	}
	var made *key
	err := b.do(ctx, "generate", "", func(s *session) error {
		c, err := b.plan(s, &spec)
		if err != nil {
			return err
		}
		delete(b.planned, c.place)
		made, err = b.generate(ctx, s, c, spec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// generate makes the key in slot c.
func (b *Backend) generate(ctx context.Context, s *session, c content, spec holdfast.KeySpec) (*key, error) {
	m := mark{role: roleKey, id: keyID(spec.ID), label: spec.Label, algorithm: spec.Algorithm}
	ref := canonical(b.serial, c.place, m.id)
	policy := pinPolicy(spec.PIN)
	// Everything that can be refused comes before the first change.
	if _, err := b.authorize(ctx, s, policy); err != nil {
		return nil, err
	}
	managementKey, err := b.managementKey(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := writeMark(s, managementKey, c.slot, mark{role: roleHalfMade, id: m.id}); err != nil {
		return nil, b.undo(s, managementKey, c, ref, m.id, nil, err)
	}
	public, err := s.yk.GenerateKey(managementKey, c.slot, piv.Key{
		Algorithm: needs[spec.Algorithm].algorithm, PINPolicy: policy, TouchPolicy: touchPolicy(spec.Touch),
	})
	if err != nil {
		return nil, b.undo(s, managementKey, c, ref, m.id, nil, b.generateError(spec, err))
	}
	k, err := b.finish(ctx, s, managementKey, c, m, public, spec)
	if err != nil {
		return nil, b.undo(s, managementKey, c, ref, m.id, public, err)
	}
	return k, nil
}

// finish checks the new key, proves that it works and writes its certificate.
func (b *Backend) finish(ctx context.Context, s *session, managementKey []byte, c content, m mark,
	public crypto.PublicKey, spec holdfast.KeySpec,
) (*key, error) {
	if err := m.algorithm.CheckPublic(typedPublic(m.algorithm, public)); err != nil {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "", "the card made a key of another kind: %w", err)
	}
	now, err := b.readBack(s, c.place, public, spec)
	if err != nil {
		return nil, err
	}
	k := b.newKey(now, canonical(b.serial, c.place, m.id), m.algorithm, public)
	k.making = true
	var signer crypto.Signer
	if m.algorithm.Use() == holdfast.UseSign {
		signer = sessionSigner{ctx, s, k}
	} else if err := k.testAgreement(ctx, s); err != nil {
		return nil, err
	}
	cert, err := m.certificate(public, signer) // for a signature key this is the test signature
	if err != nil {
		return nil, fmt.Errorf("make the certificate: %w", err)
	}
	if err := writeCertificate(s, managementKey, c.slot, cert); err != nil {
		return nil, err
	}
	k.making = false
	return k, nil
}

// readBack checks what the card says of the new key: that it is the one it returned, was generated and has the policies
// that were asked for.
func (b *Backend) readBack(s *session, place string, public crypto.PublicKey, spec holdfast.KeySpec) (content, error) {
	c := content{place: place, slot: slotOf(place)}
	if err := b.readKey(s, &c); err != nil {
		return c, err
	}
	switch {
	case c.key == absent || c.missing:
		return c, holdfast.Errorf(holdfast.ErrIntegrity, "", "the slot is empty after the key was generated")
	case c.public != nil && !samePublic(c.public, public):
		return c, holdfast.Errorf(holdfast.ErrIntegrity, "", "the slot holds another key than the one that was generated")
	case c.origin == piv.OriginImported:
		return c, holdfast.Errorf(holdfast.ErrIntegrity, "", "the card says that the key was imported, not generated")
	case c.pin != 0 && c.pin != pinPolicy(spec.PIN) || c.touch != 0 && c.touch != touchPolicy(spec.Touch):
		return c, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the card made the key with other PIN and touch policies than asked for")
	}
	if c.pin == 0 { // a card that does not tell
		c.pin, c.touch = pinPolicy(spec.PIN), touchPolicy(spec.Touch)
	}
	return c, nil
}

// generateError says what the card's refusal means: a parameter it does not know is the algorithm.
func (b *Backend) generateError(spec holdfast.KeySpec, err error) error {
	sw := statusOf(err)
	if sw != swWrongData && sw != swWrongP1P2 && !notOffered(err) {
		return err
	}
	b.withdraw(spec.Algorithm)
	return holdfast.Errorf(holdfast.ErrUnsupported, "",
		"the card makes no %s keys, whatever its version says: %w", spec.Algorithm, err)
}

// undo cleans the slot of a Generate that failed with cause. made is the key that was generated, nil for none.
func (b *Backend) undo(s *session, managementKey []byte, c content, ref holdfast.Ref, id keyID, made crypto.PublicKey,
	cause error,
) error {
	var err error
	switch {
	case gone(cause):
		err = cause
	case made == nil:
		err = writeMark(s, managementKey, c.slot, mark{role: roleDestroyed, id: id})
	default:
		err = b.scrub(s, managementKey, c, id, made)
	}
	if err == nil {
		return cause
	}
	e := &holdfast.Error{Ref: ref, Code: holdfast.CodeOf(translate("", "", cause)), Retries: holdfast.RetriesUnknown}
	e.Err = fmt.Errorf("%w; a half-made key may be left in slot %s, destroy it by its ref", cause, c.place)
	if !errors.Is(err, cause) {
		e.Err = fmt.Errorf("%w (cleaning up: %w)", e.Err, err)
	}
	return e
}

// testAgreement makes one agreement with a fresh key and compares.
func (k *key) testAgreement(ctx context.Context, s *session) error {
	public := k.public.(*ecdh.PublicKey)
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := peer.ECDH(public)
	if err != nil {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the card's public key: %w", err)
	}
	got, err := k.agree(ctx, s, peer.PublicKey())
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the card agrees on another secret than its public key says")
	}
	return nil
}

func pinPolicy(p holdfast.PINPolicy) piv.PINPolicy {
	switch p {
	case holdfast.PINNever:
		return piv.PINPolicyNever
	case holdfast.PINAlways:
		return piv.PINPolicyAlways
	default:
		return piv.PINPolicyOnce
	}
}

func touchPolicy(p holdfast.TouchPolicy) piv.TouchPolicy {
	switch p {
	case holdfast.TouchAlways:
		return piv.TouchPolicyAlways
	case holdfast.TouchCached:
		return piv.TouchPolicyCached
	default:
		return piv.TouchPolicyNever
	}
}
