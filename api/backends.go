package api

import (
	"context"
	"os"

	"google.golang.org/protobuf/types/known/timestamppb"

	"holdfast"
	pb "holdfast/api/holdfastpb"
	"holdfast/custody"
)

func backendToWire(b custody.BackendStatus) *pb.Backend {
	wire := &pb.Backend{
		Name:            b.Name,
		Kind:            b.Kind,
		Available:       b.Available,
		KeyCount:        int64(b.KeyCount),
		VerifyAfterSign: b.VerifyAfterSign,
		Concerns:        b.Concerns,
	}
	if b.Reason != nil {
		wire.Reason = sentence(b.Reason, "the name of this backend")
	}
	if b.PIN != nil {
		wire.Pin = &pb.Pin{Refused: b.PIN.Refused, Note: b.PIN.Note}
		if b.PIN.Retries != holdfast.RetriesUnknown {
			wire.Pin.Retries = new(int32(b.PIN.Retries))
		}
	}
	wire.Sealer = b.Seals
	if caps := b.Capabilities; caps != nil {
		capabilitiesToWire(wire, caps)
	}
	return wire
}

func capabilitiesToWire(wire *pb.Backend, caps *holdfast.Capabilities) {
	d := caps.Device
	wire.Device = &pb.Device{
		Manufacturer: d.Manufacturer,
		Model:        d.Model,
		Serial:       d.Serial,
		Firmware:     d.Firmware,
		Label:        d.Label,
	}
	for _, s := range caps.Algorithms {
		wire.Algorithms = append(wire.Algorithms, &pb.AlgorithmSupport{
			Algorithm: string(s.Algorithm), Resident: s.Resident, Wrapped: s.Wrapped})
	}
	wire.WrappedByDefault = caps.DefaultResidence == holdfast.Wrapped
	wire.Places = caps.Places
	wire.Distrust = caps.Distrust
}

func (h *handlers) ListBackends(ctx context.Context, _ *pb.ListBackendsRequest) (*pb.ListBackendsResponse, error) {
	resp := &pb.ListBackendsResponse{}
	for _, b := range h.custody().Backends(ctx) {
		resp.Backends = append(resp.Backends, backendToWire(b))
	}
	return resp, nil
}

func (h *handlers) ProbeBackend(ctx context.Context, r *pb.ProbeBackendRequest) (*pb.Backend, error) {
	b, err := h.custody().ProbeBackend(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return backendToWire(b), nil
}

func (h *handlers) UnlockBackend(ctx context.Context, r *pb.UnlockBackendRequest) (*pb.Backend, error) {
	if err := h.custody().UnlockBackend(ctx, r.GetName(), holdfast.NewSecret(r.GetPin())); err != nil {
		return nil, err
	}
	return h.ProbeBackend(ctx, &pb.ProbeBackendRequest{Name: r.GetName()})
}

func (h *handlers) InspectBackend(ctx context.Context, r *pb.InspectBackendRequest) (*pb.Inspection, error) {
	found, err := h.custody().InspectBackend(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	wire := &pb.Inspection{Concerns: found.Concerns}
	for _, k := range found.Missing {
		wire.Missing = append(wire.Missing, k.Name)
	}
	for _, k := range found.Changed {
		wire.Changed = append(wire.Changed, k.Name)
	}
	for _, u := range found.Undead {
		wire.Undead = append(wire.Undead, string(u.Ref))
	}
	for _, ref := range found.Foreign {
		wire.Foreign = append(wire.Foreign, string(ref))
	}
	for _, err := range found.Unusable {
		wire.Unusable = append(wire.Unusable, err.Error())
	}
	for _, act := range found.Pending {
		wire.Pending = append(wire.Pending, string(act.Act)+" "+act.Name)
	}
	return wire, nil
}

func (h *handlers) ActivateCredential(
	ctx context.Context, r *pb.ActivateCredentialRequest,
) (*pb.ActivateCredentialResponse, error) {
	answer, err := h.custody().Activate(ctx, r.GetName(), r.GetCredential())
	if err != nil {
		return nil, err
	}
	return &pb.ActivateCredentialResponse{Answer: answer.Bytes()}, nil
}

func (h *handlers) Seal(ctx context.Context, r *pb.SealRequest) (*pb.SealResponse, error) {
	options := &holdfast.SealOptions{AuthValue: holdfast.NewSecret(r.GetAuthValue())}
	for _, pcr := range r.GetPcrs() {
		options.PCRs = append(options.PCRs, int(pcr))
	}
	blob, err := h.custody().Seal(ctx, r.GetBackend(), holdfast.NewSecret(r.GetSecret()), options)
	if err != nil {
		return nil, err
	}
	return &pb.SealResponse{Blob: blob}, nil
}

func (h *handlers) Unseal(ctx context.Context, r *pb.UnsealRequest) (*pb.UnsealResponse, error) {
	options := &holdfast.UnsealOptions{AuthValue: holdfast.NewSecret(r.GetAuthValue())}
	secret, err := h.custody().Unseal(ctx, r.GetBackend(), r.GetBlob(), options)
	if err != nil {
		return nil, err
	}
	return &pb.UnsealResponse{Secret: secret.Bytes()}, nil
}

func (h *handlers) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.Status, error) {
	dids, err := h.custody().CountDIDs(ctx)
	if err != nil {
		return nil, err
	}
	st := &pb.Status{
		Version:     h.server.cfg.Version,
		StartTime:   timestamppb.New(h.server.start),
		Pid:         int32(os.Getpid()),
		DidCount:    int64(dids),
		HttpAddress: h.server.cfg.PublicAddress,
	}
	for _, b := range h.custody().Backends(ctx) {
		st.Backends++
		st.KeyCount += int64(b.KeyCount)
		if b.Available {
			st.BackendsAvailable++
		}
	}
	return st, nil
}
