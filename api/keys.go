package api

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"strings"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"holdfast"
	pb "holdfast/api/holdfastpb"
	"holdfast/custody"
	"holdfast/custody/evidence"
	"holdfast/internal/pubkey"
)

// handlers implements every service of the schema over package custody.
type handlers struct {
	pb.UnimplementedKeyServiceServer
	pb.UnimplementedBackendServiceServer
	pb.UnimplementedDIDServiceServer
	pb.UnimplementedStatusServiceServer
	server *Server
}

func (h *handlers) custody() *custody.Service { return h.server.cfg.Custody }

func keyToWire(k custody.Key) (*pb.Key, error) {
	var public []byte
	if k.Public != nil {
		der, err := pubkey.MarshalSPKI(k.Public)
		if err != nil {
			return nil, err
		}
		public = der
	}
	return &pb.Key{
		Name:        k.Name,
		Backend:     k.Backend,
		Ref:         string(k.Ref),
		Algorithm:   string(k.Algorithm),
		Purpose:     string(k.Purpose),
		Residence:   pb.Residence(k.Residence),
		PublicKey:   public,
		CreateTime:  timestamppb.New(k.Created),
		Adopted:     k.Adopted,
		PinPolicy:   pb.PinPolicy(k.PIN),
		TouchPolicy: pb.TouchPolicy(k.Touch),
	}, nil
}

func (h *handlers) CreateKey(ctx context.Context, r *pb.CreateKeyRequest) (*pb.Key, error) {
	algorithm, err := holdfast.ParseAlgorithm(r.GetAlgorithm())
	if err != nil {
		return nil, err
	}
	k, err := h.custody().CreateKey(ctx, custody.CreateKeyRequest{
		Name:      r.GetName(),
		Backend:   r.GetBackend(),
		Algorithm: algorithm,
		Purpose:   custody.Purpose(r.GetPurpose()),
		Residence: holdfast.Residence(r.GetResidence()),
		Place:     r.GetPlace(),
		PIN:       holdfast.PINPolicy(r.GetPinPolicy()),
		Touch:     holdfast.TouchPolicy(r.GetTouchPolicy()),
	})
	if err != nil {
		return nil, err
	}
	return keyToWire(k)
}

func (h *handlers) AdoptKey(ctx context.Context, r *pb.AdoptKeyRequest) (*pb.Key, error) {
	k, err := h.custody().AdoptKey(ctx, custody.AdoptKeyRequest{
		Name:    r.GetName(),
		Backend: r.GetBackend(),
		Ref:     holdfast.Ref(r.GetRef()),
		Purpose: custody.Purpose(r.GetPurpose()),
	})
	if err != nil {
		return nil, err
	}
	return keyToWire(k)
}

func (h *handlers) GetKey(ctx context.Context, r *pb.GetKeyRequest) (*pb.Key, error) {
	var k custody.Key
	var err error
	switch {
	case r.GetName() != "" && r.GetRef() != "":
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "give a name, or a backend and a ref, not both")
	case r.GetRef() != "":
		k, err = h.custody().KeyByRef(ctx, r.GetBackend(), holdfast.Ref(r.GetRef()))
	default:
		k, err = h.custody().Key(ctx, r.GetName())
	}
	if err != nil {
		return nil, err
	}
	return keyToWire(k)
}

func (h *handlers) ListKeys(ctx context.Context, r *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
	options := custody.ListOptions{Backend: r.GetBackend(), After: r.GetPageToken(), Limit: int(r.GetPageSize())}
	keys, next, err := h.custody().Keys(ctx, options)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListKeysResponse{NextPageToken: next}
	for _, k := range keys {
		wire, err := keyToWire(k)
		if err != nil {
			return nil, err
		}
		resp.Keys = append(resp.Keys, wire)
	}
	return resp, nil
}

func (h *handlers) DestroyKey(ctx context.Context, r *pb.DestroyKeyRequest) (*pb.DestroyKeyResponse, error) {
	if !r.GetForce() {
		if err := h.refuseUsed(ctx, r.GetName()); err != nil {
			return nil, err
		}
	}
	if err := h.custody().DestroyKey(ctx, r.GetName()); err != nil {
		return nil, err
	}
	return &pb.DestroyKeyResponse{}, nil
}

// refuseUsed keeps a slip from costing somebody their DID: there is no way back from destroying its keys.
func (h *handlers) refuseUsed(ctx context.Context, name string) error {
	dids, err := h.custody().DIDsOfKey(ctx, name)
	if err != nil || len(dids) == 0 {
		return err
	}
	return holdfast.Errorf(holdfast.ErrState, "",
		"the key %q is used by %s: destroy it with --force if you give that up", name, strings.Join(dids, ", "))
}

func (h *handlers) Sign(ctx context.Context, r *pb.SignRequest) (*pb.SignResponse, error) {
	signature, err := h.custody().Sign(ctx, r.GetName(), r.GetDigest())
	if err != nil {
		return nil, err
	}
	return &pb.SignResponse{Signature: signature}, nil
}

func (h *handlers) SignBatch(ctx context.Context, r *pb.SignBatchRequest) (*pb.SignBatchResponse, error) {
	results, err := h.custody().SignBatch(ctx, r.GetName(), r.GetDigests())
	if err != nil {
		return nil, err
	}
	resp := &pb.SignBatchResponse{Results: make([]*pb.SignResult, len(results))}
	for i, result := range results {
		resp.Results[i] = &pb.SignResult{Result: &pb.SignResult_Signature{Signature: result.Signature}}
		if result.Err != nil {
			resp.Results[i].Result = &pb.SignResult_Error{Error: h.signError(r.GetName(), result.Err)}
		}
	}
	return resp, nil
}

// signError translates the failure of one digest of a batch. The call as a whole succeeds, so that it is logged here.
func (h *handlers) signError(name string, err error) *pb.Error {
	code := holdfast.CodeOf(err)
	if code == holdfast.ErrInternal {
		h.server.cfg.Logger.Error("signature of a batch failed", zap.String("key", name), zap.String("error", clip(err)))
	}
	return &pb.Error{Code: Reason(code), Message: sentence(err, "the name of this key")}
}

func (h *handlers) Agree(ctx context.Context, r *pb.AgreeRequest) (*pb.AgreeResponse, error) {
	peer, err := parsePeer(r.GetPeerPublicKey())
	if err != nil {
		return nil, err
	}
	secret, err := h.custody().Agree(ctx, r.GetName(), peer)
	if err != nil {
		return nil, err
	}
	return &pb.AgreeResponse{SharedSecret: secret}, nil
}

// parsePeer reads a public key for ECDH; SubjectPublicKeyInfo does not tell it from one for ECDSA.
func parsePeer(der []byte) (*ecdh.PublicKey, error) {
	public, err := pubkey.ParseSPKI(der)
	if err != nil {
		return nil, err
	}
	switch p := public.(type) {
	case *ecdh.PublicKey:
		return p, nil
	case *ecdsa.PublicKey:
		if peer, err := p.ECDH(); err == nil {
			return peer, nil
		}
	}
	return nil, holdfast.Errorf(holdfast.ErrInvalid, "agree",
		"the peer's public key is not one for ECDH on P-256, P-384 or X25519")
}

func (h *handlers) Encrypt(ctx context.Context, r *pb.EncryptRequest) (*pb.EncryptResponse, error) {
	ciphertext, err := h.custody().Encrypt(ctx, r.GetName(), r.GetPlaintext(), r.GetAdditionalData())
	if err != nil {
		return nil, err
	}
	return &pb.EncryptResponse{Ciphertext: ciphertext}, nil
}

func (h *handlers) Decrypt(ctx context.Context, r *pb.DecryptRequest) (*pb.DecryptResponse, error) {
	plaintext, err := h.custody().Decrypt(ctx, r.GetName(), r.GetCiphertext(), r.GetAdditionalData())
	if err != nil {
		return nil, err
	}
	return &pb.DecryptResponse{Plaintext: plaintext}, nil
}

func (h *handlers) AttestKey(ctx context.Context, r *pb.AttestKeyRequest) (*pb.AttestKeyResponse, error) {
	bundle, err := h.custody().Attest(ctx, r.GetName(), r.GetNonce())
	if err != nil {
		return nil, err
	}
	return &pb.AttestKeyResponse{Kind: evidence.Kind(bundle), Files: bundle}, nil
}
