package custody

import (
	"context"

	"holdfast"
	"holdfast/custody/store"

	"go.uber.org/zap"
)

// AdoptKey takes a key into custody that is on a device already. The device is not changed. It returns ErrNotFound when
// the device has no such key, ErrExists when the name is taken or the key is known by another one, ErrInvalid when it is
// not what the request says.
//
// Whether the private half has been elsewhere before, nobody knows; [Service.Attest] tells where the device can.
func (s *Service) AdoptKey(ctx context.Context, r AdoptKeyRequest) (Key, error) {
	if err := s.enter(ctx); err != nil {
		return Key{}, err
	}
	defer s.calls.leave()
	b, err := s.backend(r.Backend)
	if err != nil {
		return Key{}, err
	}
	if err := holdfast.CheckLabel(r.Name); err != nil {
		return Key{}, err
	}
	if !r.Purpose.Valid() {
		_, err := ParsePurpose(string(r.Purpose))
		return Key{}, err
	}
	if !s.claims.take(r.Name) {
		return Key{}, errTaken(r.Name)
	}
	defer s.claims.drop(r.Name)
	if err := s.refuseTaken(ctx, r.Name); err != nil {
		return Key{}, err
	}
	d, err := b.get(ctx)
	if err != nil {
		return Key{}, err
	}
	k, err := d.Key(ctx, r.Ref)
	if b.observe(err) != nil {
		return Key{}, err
	}
	if r.Algorithm != "" && r.Algorithm != k.Algorithm() {
		return Key{}, holdfast.Errorf(holdfast.ErrInvalid, "", "%s is a key for %s, not for %s", k.Ref(), k.Algorithm(),
			r.Algorithm)
	}
	if err := r.Purpose.Check(k.Algorithm()); err != nil {
		return Key{}, err
	}
	c := &creation{s: s, b: b, d: d, record: store.Key{
		ID: store.NewID(), Name: r.Name, Backend: r.Backend, Algorithm: k.Algorithm(), Purpose: string(r.Purpose),
		Residence: holdfast.Resident, Adopted: true, State: store.StateActive,
	}}
	key, err := c.add(ctx, k)
	if err == nil {
		s.log.Info("key adopted", zap.String("op", "adopt"), zap.String("key_ref", string(key.Ref)),
			zap.String("backend", key.Backend))
	}
	return key, err
}
