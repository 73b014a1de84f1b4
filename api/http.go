package api

import (
	"context"
	_ "embed" // openAPI
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
)

// openAPI is the description of the JSON face, generated with the rest of the schema.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI)
}

// newMarshaler is protojson with names and defaults as a person with curl expects them, and with unknown fields refused.
func newMarshaler() runtime.Marshaler {
	return &runtime.HTTPBodyMarshaler{Marshaler: discreet{&runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
	}}}
}

// discreet is a JSONPb whose errors do not quote values: a PIN that is not in base64 would go into the logs of whoever
// logs what he is answered.
type discreet struct{ *runtime.JSONPb }

// NewDecoder returns a decoder of one request.
func (m discreet) NewDecoder(r io.Reader) runtime.Decoder {
	decoder := m.JSONPb.NewDecoder(r)
	return runtime.DecoderFunc(func(v any) error {
		err := decoder.Decode(v)
		if err == nil || errors.Is(err, io.EOF) {
			return err
		}
		if before, rest, found := strings.Cut(err.Error(), "invalid value for "); found {
			field, _, _ := strings.Cut(rest, ":")
			return errors.New(before + "invalid value for " + field)
		}
		if before, _, found := strings.Cut(err.Error(), "unexpected token "); found {
			return errors.New(before + "unexpected token")
		}
		return err
	})
}

// live answers as long as the process does.
func live(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

// readiness is the body of /readyz.
type readiness struct {
	Ready    bool              `json:"ready"`
	Store    string            `json:"store"`
	Backends map[string]string `json:"backends"`
}

// ready says 200 when calls can be answered: the store works. A backend that is away makes its own keys fail, not the
// daemon; it is named in the body.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	body := s.readiness(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // the caller is gone if this fails
}

func (s *Server) readiness(ctx context.Context) readiness {
	body := readiness{Ready: true, Store: "ok", Backends: map[string]string{}}
	if err := s.cfg.Custody.Ready(ctx); err != nil {
		body.Ready, body.Store = false, err.Error()
	}
	for _, b := range s.cfg.Custody.Backends(ctx) {
		body.Backends[b.Name] = "ok"
		if !b.Available {
			body.Backends[b.Name] = sentence(b.Reason, "the name of this backend")
		}
	}
	return body
}
