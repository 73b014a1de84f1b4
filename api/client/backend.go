package client

import (
	"context"
	"iter"
	"sync/atomic"

	"holdfast"
	pb "holdfast/api/holdfastpb"
	"holdfast/internal/pubkey"
)

// Backend is one backend of a daemon. A key's label is its name in the daemon, so it has to be unique there. Wrapped keys
// are kept by the daemon and found by their ref; KeySpec.ID is the daemon's to choose.
type Backend struct {
	client  *Client
	name    string
	purpose func(holdfast.Algorithm) string
	caps    holdfast.Capabilities
	closed  atomic.Bool
}

var (
	_ holdfast.Backend   = (*Backend)(nil)
	_ holdfast.Destroyer = (*Backend)(nil)
	_ holdfast.Prober    = (*Backend)(nil)
	_ holdfast.Sealer    = sealer{}
	_ holdfast.Unlocker  = unlocker{}
)

// Backend returns the daemon's backend called name, with the optional interfaces that its device has. It asks the daemon
// for the capabilities and returns ErrNotFound when there is no such backend, ErrUnavailable with the reason when the
// daemon cannot reach the device. purpose is that of the keys Generate makes, by their algorithm's use; nil takes
// assertion, key-agreement and wallet-kek.
func (c *Client) Backend(
	ctx context.Context, name string, purpose func(holdfast.Algorithm) string,
) (holdfast.Backend, error) {
	resp, err := c.ListBackends(ctx, &pb.ListBackendsRequest{})
	if err != nil {
		return nil, err
	}
	if purpose == nil {
		purpose = defaultPurpose
	}
	for _, wire := range resp.GetBackends() {
		if wire.GetName() != name {
			continue
		}
		if !wire.GetAvailable() {
			return nil, holdfast.Errorf(holdfast.ErrUnavailable, "open", "backend %s: %s", name, wire.GetReason())
		}
		b := &Backend{client: c, name: name, purpose: purpose, caps: capabilities(wire)}
		switch {
		case wire.GetSealer() && wire.GetPin() != nil:
			return struct {
				*Backend
				sealer
				unlocker
			}{b, sealer{b}, unlocker{b}}, nil
		case wire.GetSealer():
			return struct {
				*Backend
				sealer
			}{b, sealer{b}}, nil
		case wire.GetPin() != nil:
			return struct {
				*Backend
				unlocker
			}{b, unlocker{b}}, nil
		}
		return b, nil
	}
	return nil, holdfast.Errorf(holdfast.ErrNotFound, "open", "the daemon has no backend called %q", name)
}

func defaultPurpose(a holdfast.Algorithm) string {
	switch a.Use() {
	case holdfast.UseAgree:
		return "key-agreement"
	case holdfast.UseEncrypt:
		return "wallet-kek"
	default:
		return "assertion"
	}
}

func capabilities(wire *pb.Backend) holdfast.Capabilities {
	d := wire.GetDevice()
	caps := holdfast.Capabilities{
		Kind: wire.GetKind(),
		Device: holdfast.Device{Manufacturer: d.GetManufacturer(), Model: d.GetModel(), Serial: d.GetSerial(),
			Firmware: d.GetFirmware(), Label: d.GetLabel()},
		DefaultResidence: holdfast.Resident,
		Places:           wire.GetPlaces(),
		Distrust:         wire.GetDistrust(),
	}
	if wire.GetWrappedByDefault() {
		caps.DefaultResidence = holdfast.Wrapped
	}
	for _, s := range wire.GetAlgorithms() {
		caps.Algorithms = append(caps.Algorithms, holdfast.Support{
			Algorithm: holdfast.Algorithm(s.GetAlgorithm()), Resident: s.GetResident(), Wrapped: s.GetWrapped()})
	}
	return caps
}

// Capabilities returns what the device said when this value was made.
func (b *Backend) Capabilities() holdfast.Capabilities { return b.caps }

func (b *Backend) open() error {
	if b.closed.Load() {
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the backend is closed")
	}
	return nil
}

// Generate makes a key whose name is spec.Label. It returns ErrExists when the name is taken.
func (b *Backend) Generate(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	if err := b.caps.CheckSpec(spec); err != nil {
		return nil, err
	}
	if spec.ID != nil {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "generate", "the daemon chooses the identifier")
	}
	if err := b.open(); err != nil {
		return nil, err
	}
	wire, err := b.client.CreateKey(ctx, &pb.CreateKeyRequest{
		Name:        spec.Label,
		Backend:     b.name,
		Algorithm:   string(spec.Algorithm),
		Purpose:     b.purpose(spec.Algorithm),
		Residence:   pb.Residence(spec.Residence),
		Place:       spec.Place,
		PinPolicy:   pb.PinPolicy(spec.PIN),
		TouchPolicy: pb.TouchPolicy(spec.Touch),
	})
	if err != nil {
		return nil, err
	}
	return b.key(wire)
}

// Key returns the key with this ref that the daemon holds, resident or wrapped.
func (b *Backend) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	if ref == "" {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "find", "the ref is empty")
	}
	if err := b.open(); err != nil {
		return nil, err
	}
	wire, err := b.client.GetKey(ctx, &pb.GetKeyRequest{Backend: b.name, Ref: string(ref)})
	if err != nil {
		return nil, err
	}
	return b.key(wire)
}

// Keys lists the keys that the daemon holds on this backend.
func (b *Backend) Keys(ctx context.Context) iter.Seq2[holdfast.Key, error] {
	return func(yield func(holdfast.Key, error) bool) {
		request := &pb.ListKeysRequest{Backend: b.name, PageSize: 1000}
		for {
			resp, err := b.client.ListKeys(ctx, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, wire := range resp.GetKeys() {
				if !yield(b.key(wire)) {
					return
				}
			}
			if request.PageToken = resp.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

func (b *Backend) key(wire *pb.Key) (holdfast.Key, error) {
	k := &Key{
		backend:   b,
		name:      wire.GetName(),
		ref:       holdfast.Ref(wire.GetRef()),
		algorithm: holdfast.Algorithm(wire.GetAlgorithm()),
	}
	if der := wire.GetPublicKey(); len(der) > 0 {
		var err error
		if k.public, err = pubkey.ParseSPKIFor(k.algorithm, der); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Destroy destroys the key with this ref.
func (b *Backend) Destroy(ctx context.Context, ref holdfast.Ref) error {
	if err := b.open(); err != nil {
		return err
	}
	wire, err := b.client.GetKey(ctx, &pb.GetKeyRequest{Backend: b.name, Ref: string(ref)})
	if err != nil {
		return err
	}
	_, err = b.client.DestroyKey(ctx, &pb.DestroyKeyRequest{Name: wire.GetName()})
	return err
}

// Probe asks the daemon to ask the device.
func (b *Backend) Probe(ctx context.Context) error {
	if err := b.open(); err != nil {
		return err
	}
	wire, err := b.client.ProbeBackend(ctx, &pb.ProbeBackendRequest{Name: b.name})
	if err == nil && !wire.GetAvailable() {
		err = holdfast.Errorf(holdfast.ErrUnavailable, "probe", "%s", wire.GetReason())
	}
	return err
}

// Close makes the backend and its keys fail with ErrUnavailable; the client stays open.
func (b *Backend) Close() error {
	b.closed.Store(true)
	return nil
}

// sealer is a Backend whose device seals.
type sealer struct{ b *Backend }

// Seal binds secret to the daemon's device.
func (s sealer) Seal(ctx context.Context, secret holdfast.Secret, options *holdfast.SealOptions) ([]byte, error) {
	if err := s.b.open(); err != nil {
		return nil, err
	}
	request := &pb.SealRequest{Backend: s.b.name, Secret: secret.Bytes()}
	if options != nil {
		request.AuthValue = options.AuthValue.Bytes()
		for _, pcr := range options.PCRs {
			request.Pcrs = append(request.Pcrs, int32(pcr))
		}
	}
	resp, err := s.b.client.Seal(ctx, request)
	return resp.GetBlob(), err
}

// Unseal returns a sealed secret.
func (s sealer) Unseal(ctx context.Context, blob []byte, options *holdfast.UnsealOptions) (holdfast.Secret, error) {
	if err := s.b.open(); err != nil {
		return holdfast.Secret{}, err
	}
	request := &pb.UnsealRequest{Backend: s.b.name, Blob: blob}
	if options != nil {
		request.AuthValue = options.AuthValue.Bytes()
	}
	resp, err := s.b.client.Unseal(ctx, request)
	if err != nil {
		return holdfast.Secret{}, err
	}
	return holdfast.NewSecret(resp.GetSecret()), nil
}

// unlocker is a Backend whose device has a PIN.
type unlocker struct{ b *Backend }

// Unlock gives the device a PIN.
func (u unlocker) Unlock(ctx context.Context, pin holdfast.Secret) error {
	if pin.Len() == 0 {
		return holdfast.Errorf(holdfast.ErrInvalid, "unlock", "the PIN is empty")
	}
	if err := u.b.open(); err != nil {
		return err
	}
	_, err := u.b.client.UnlockBackend(ctx, &pb.UnlockBackendRequest{Name: u.b.name, Pin: pin.Bytes()})
	return err
}

// PINStatus returns what the device says of its PIN.
func (u unlocker) PINStatus(ctx context.Context) (holdfast.PINStatus, error) {
	if err := u.b.open(); err != nil {
		return holdfast.PINStatus{}, err
	}
	wire, err := u.b.client.ProbeBackend(ctx, &pb.ProbeBackendRequest{Name: u.b.name})
	if err != nil {
		return holdfast.PINStatus{}, err
	}
	pin := wire.GetPin()
	status := holdfast.PINStatus{Retries: holdfast.RetriesUnknown, Refused: pin.GetRefused(), Note: pin.GetNote()}
	if pin != nil && pin.Retries != nil {
		status.Retries = int(pin.GetRetries())
	}
	return status, nil
}
