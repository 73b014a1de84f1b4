package api

import (
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"time"

	"holdfast"
	"holdfast/custody"
)

// publicMaxAge is how long caches may keep a log: a rotation must be seen soon.
const publicMaxAge = "max-age=60"

// PublicHandler serves what the world may see: the logs of the did:webvh DIDs made here, each at its own address and
// host name. Everything else is 404.
func PublicHandler(service *custody.Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/did.jsonl") || r.URL.RawQuery != "" {
			http.NotFound(w, r)
			return
		}
		d, err := service.DIDByURL(r.Context(), "https://"+publicHost(r.Host)+r.URL.EscapedPath())
		switch {
		case holdfast.CodeOf(err) == holdfast.ErrNotFound:
			http.NotFound(w, r)
			return
		case err != nil:
			http.Error(w, "not available", http.StatusServiceUnavailable)
			return
		}
		sum := sha256.Sum256([]byte(d.Log))
		h := w.Header()
		h.Set("Content-Type", "text/jsonl; charset=utf-8")
		h.Set("Cache-Control", publicMaxAge)
		h.Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:12])+`"`)
		h.Set("Access-Control-Allow-Origin", "*") // resolvers run in browsers too
		h.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "did.jsonl", time.Time{}, strings.NewReader(d.Log))
	})
	mux.HandleFunc("GET /livez", live)
	return mux
}

// publicHost is the host as a DID's URL has it: lower case, without the port of https.
func publicHost(host string) string {
	host = strings.ToLower(host)
	if name, port, err := net.SplitHostPort(host); err == nil && port == "443" {
		return name
	}
	return host
}
