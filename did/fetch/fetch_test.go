package fetch_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/did/fetch"
)

// serve starts a server that says it is example.com, and a client that takes it for that.
func serve(t *testing.T, handler http.Handler, change func(*fetch.Options)) (*fetch.Client, *httptest.Server) {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	address := server.Listener.Addr().String()
	options := &fetch.Options{RootCAs: roots, Pins: map[string]string{"example.com:443": address,
		"www.example.com:443": address}}
	if change != nil {
		change(options)
	}
	client := fetch.New(options)
	t.Cleanup(client.Close)
	return client, server
}

func wantCode(t *testing.T, what string, err error, code holdfast.Code) {
	t.Helper()
	if _, ok := errors.AsType[*holdfast.Error](err); !ok || !errors.Is(err, code) {
		t.Errorf("%s: %v, want %v", what, err, code)
	}
}

func TestFetch(t *testing.T) {
	client, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" || r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("request %s %v", r.Host, r.Header)
		}
		_, _ = w.Write([]byte("log of " + r.URL.EscapedPath()))
	}), nil)
	body, err := client.Fetch(t.Context(), "https://example.com/%E7%94%A8/did.jsonl")
	if err != nil || string(body) != "log of /%E7%94%A8/did.jsonl" {
		t.Errorf("Fetch = %q, %v", body, err)
	}
}

func TestStatus(t *testing.T) {
	client, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := map[string]int{"/404": 404, "/410": 410, "/403": 403, "/429": 429, "/500": 500, "/204": 204,
			"/206": 206}[r.URL.Path]
		w.WriteHeader(status)
	}), nil)
	for path, code := range map[string]holdfast.Code{
		"404": holdfast.ErrNotFound, "410": holdfast.ErrNotFound, "403": holdfast.ErrInvalid,
		"429": holdfast.ErrUnavailable,
		"500": holdfast.ErrUnavailable, "204": holdfast.ErrInvalid, "206": holdfast.ErrInvalid,
	} {
		_, err := client.Fetch(t.Context(), "https://example.com/"+path)
		wantCode(t, path, err, code)
	}
}

func TestURLsRefused(t *testing.T) {
	client, _ := serve(t, http.NotFoundHandler(), nil)
	for _, u := range []string{
		"http://example.com/", "ftp://example.com/", "file:///etc/passwd", "https:///x", "https:example.com", "//example.com/",
		"https://user@example.com/", "https://user:secret@example.com/", "",
	} {
		_, err := client.Fetch(t.Context(), u)
		wantCode(t, u, err, holdfast.ErrDenied)
	}
	for _, u := range []string{"https://example.com:99999999/%zz", "https://exa mple.com/", "://", "https://[::1/"} {
		_, err := client.Fetch(t.Context(), u)
		wantCode(t, u, err, holdfast.ErrInvalid)
	}
}

// The server is there and its certificate is good, but its address is not public and the name is not pinned.
func TestPrivateAddressesRefused(t *testing.T) {
	client, server := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the server was asked")
	}), nil)
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "2130706433", "127.1",
	} {
		_, err := client.Fetch(t.Context(), "https://"+host+":"+port+"/")
		if !errors.Is(err, holdfast.ErrDenied) && !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("%s: %v", host, err)
		}
		if host == "127.0.0.1" || host == "localhost" || strings.Contains(host, "ffff") {
			wantCode(t, host, err, holdfast.ErrDenied)
		}
	}
}

func TestRedirects(t *testing.T) {
	client, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/once":
			http.Redirect(w, r, "/there", http.StatusFound)
		case "/there":
			_, _ = w.Write([]byte("here"))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/otherhost":
			http.Redirect(w, r, "https://www.example.com/there", http.StatusFound)
		case "/otherport":
			http.Redirect(w, r, "https://example.com:8443/there", http.StatusFound)
		case "/plain":
			http.Redirect(w, r, "http://example.com/there", http.StatusFound)
		case "/inside":
			http.Redirect(w, r, "https://169.254.169.254/latest/meta-data", http.StatusFound)
		case "/user":
			http.Redirect(w, r, "https://root@example.com/there", http.StatusFound)
		}
	}), nil)
	if body, err := client.Fetch(t.Context(), "https://example.com/once"); err != nil || string(body) != "here" {
		t.Errorf("once: %q, %v", body, err)
	}
	for _, path := range []string{"loop", "otherhost", "otherport", "plain", "inside", "user"} {
		_, err := client.Fetch(t.Context(), "https://example.com/"+path)
		wantCode(t, path, err, holdfast.ErrDenied)
	}
}

func TestBounds(t *testing.T) {
	release := make(chan struct{})
	client, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/just":
			_, _ = w.Write(make([]byte, 1000))
		case "/long":
			_, _ = w.Write(make([]byte, 1001))
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("not asked for"))
		case "/never":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	}), func(o *fetch.Options) { o.MaxBytes, o.Timeout = 1000, 300*time.Millisecond })
	t.Cleanup(func() { close(release) })
	if body, err := client.Fetch(t.Context(), "https://example.com/just"); err != nil || len(body) != 1000 {
		t.Errorf("just: %d bytes, %v", len(body), err)
	}
	for path, code := range map[string]holdfast.Code{
		"long": holdfast.ErrInvalid, "endless": holdfast.ErrInvalid, "gzip": holdfast.ErrInvalid,
		"never": holdfast.ErrUnavailable,
	} {
		_, err := client.Fetch(t.Context(), "https://example.com/"+path)
		wantCode(t, path, err, code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Fetch(ctx, "https://example.com/just"); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	client, _ := serve(t, http.NotFoundHandler(), func(o *fetch.Options) { o.RootCAs = x509.NewCertPool() })
	_, err := client.Fetch(t.Context(), "https://example.com/")
	wantCode(t, "unknown authority", err, holdfast.ErrUnavailable)

	client, server := serve(t, http.NotFoundHandler(), nil)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	other := fetch.New(&fetch.Options{RootCAs: roots, Pins: map[string]string{"example.org:443": server.Listener.Addr().String()}})
	t.Cleanup(other.Close)
	_, err = other.Fetch(t.Context(), "https://example.org/")
	wantCode(t, "certificate of another host", err, holdfast.ErrUnavailable)
	_, err = client.Fetch(t.Context(), "https://example.com/")
	wantCode(t, "the right one", err, holdfast.ErrNotFound)
}
