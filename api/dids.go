package api

import (
	"context"
	"encoding/json"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "holdfast/api/holdfastpb"
	"holdfast/custody"
	"holdfast/did"
)

func didToWire(d custody.DID) *pb.DID {
	wire := &pb.DID{
		Did:        d.DID,
		Method:     d.Method,
		Document:   d.Document,
		Log:        d.Log,
		Url:        d.URL,
		CreateTime: timestamppb.New(d.Created),
	}
	for _, k := range d.Keys {
		wire.Keys = append(wire.Keys, &pb.DIDKey{Role: k.Role, Name: k.Name})
	}
	return wire
}

func (h *handlers) CreateDID(ctx context.Context, r *pb.CreateDIDRequest) (*pb.DID, error) {
	d, err := h.custody().CreateDID(ctx, custody.CreateDIDRequest{
		Method:         r.GetMethod(),
		Key:            r.GetKey(),
		NextKeys:       r.GetNextKeys(),
		Domain:         r.GetDomain(),
		Path:           r.GetPath(),
		Authentication: r.GetAuthentication(),
		Assertion:      r.GetAssertion(),
		KeyAgreement:   r.GetKeyAgreement(),
		Portable:       r.GetPortable(),
	})
	if err != nil {
		return nil, err
	}
	return didToWire(d), nil
}

func (h *handlers) GetDID(ctx context.Context, r *pb.GetDIDRequest) (*pb.DID, error) {
	d, err := h.custody().DID(ctx, r.GetDid())
	if err != nil {
		return nil, err
	}
	return didToWire(d), nil
}

func (h *handlers) ListDIDs(ctx context.Context, r *pb.ListDIDsRequest) (*pb.ListDIDsResponse, error) {
	dids, next, err := h.custody().DIDs(ctx, r.GetPageToken(), int(r.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &pb.ListDIDsResponse{NextPageToken: next}
	for _, d := range dids {
		resp.Dids = append(resp.Dids, didToWire(d))
	}
	return resp, nil
}

func (h *handlers) ResolveDID(ctx context.Context, r *pb.ResolveDIDRequest) (*pb.ResolveDIDResponse, error) {
	options := &did.ResolveOptions{VersionID: r.GetVersionId()}
	if t := r.GetVersionTime(); t != nil {
		options.VersionTime = t.AsTime()
	}
	resolution, err := h.server.cfg.Resolver.Resolve(ctx, r.GetDid(), options)
	if err != nil {
		return nil, err
	}
	metadata, err := json.Marshal(resolution.DocumentMetadata)
	if err != nil {
		return nil, err
	}
	return &pb.ResolveDIDResponse{Document: string(resolution.JSON), DocumentMetadata: string(metadata)}, nil
}
