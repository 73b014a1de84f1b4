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
		wire.Reason = sentence(b.Reason, holdfast.CodeOf(b.Reason))
	}
	if b.PIN != nil {
		wire.Pin = &pb.Pin{Refused: b.PIN.Refused, Note: b.PIN.Note}
		if b.PIN.Retries != holdfast.RetriesUnknown {
			wire.Pin.Retries = new(int32(b.PIN.Retries))
		}
	}
	caps := b.Capabilities
	d := caps.Device
	wire.Device = &pb.Device{Manufacturer: d.Manufacturer, Model: d.Model, Serial: d.Serial, Firmware: d.Firmware, Label: d.Label}
	for _, s := range caps.Algorithms {
		wire.Algorithms = append(wire.Algorithms, &pb.AlgorithmSupport{
			Algorithm: string(s.Algorithm), Resident: s.Resident, Wrapped: s.Wrapped})
	}
	wire.WrappedByDefault = caps.DefaultResidence == holdfast.Wrapped
	wire.Places = caps.Places
	wire.Distrust = caps.Distrust
	wire.Sealer = b.Sealer
	return wire
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
	b, err := h.custody().UnlockBackend(ctx, r.GetName(), holdfast.NewSecret(r.GetPin()))
	if err != nil {
		return nil, err
	}
	return backendToWire(b), nil
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
	counts, err := h.custody().Counts(ctx)
	if err != nil {
		return nil, err
	}
	st := &pb.Status{
		Version:     h.server.cfg.Version,
		StartTime:   timestamppb.New(h.server.start),
		Pid:         int32(os.Getpid()),
		KeyCount:    int64(counts.Keys),
		DidCount:    int64(counts.DIDs),
		HttpAddress: h.server.cfg.PublicAddress,
	}
	for _, b := range h.custody().Backends(ctx) {
		st.Backends++
		if b.Available {
			st.BackendsAvailable++
		}
	}
	return st, nil
}
