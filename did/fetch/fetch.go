// Package fetch gets documents that DIDs point to from the web. A DID is a request to fetch what its author chose, so the
// client is built for addresses chosen by an adversary (server-side request forgery):
//
//   - https only, TLS 1.2 or later, certificates verified; no proxy, no cookies, no credentials;
//   - the address is checked after name resolution, for every connection: loopback, private, link-local, multicast and
//     all other special-purpose ranges are refused, also inside IPv6 addresses that carry an IPv4 one;
//   - redirects stay on the same host and port, and are few;
//   - size and time are bounded.
//
// Pins send a host to an address of one's own instead, for tests, development and split-horizon networks.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"holdfast"
	"holdfast/did"
)

const op = "fetch"

// Options configures a Client. Zero fields mean the defaults.
type Options struct {
	// Pins maps "host:port" as in the URL (with port 443 when the URL has none) to the address to dial instead, which is
	// not checked. The certificate still has to be the host's.
	Pins map[string]string

	// RootCAs are the certificate authorities to trust. Nil means those of the computer.
	RootCAs *x509.CertPool

	// MaxBytes is the longest body. The default is 64 MiB.
	MaxBytes int64

	// Timeout is for one fetch, redirects and body included. The default is 20 seconds.
	Timeout time.Duration

	// MaxRedirects is how many redirects are followed. The default is 3; negative means none.
	MaxRedirects int
}

// Client is a did.Fetcher for the web. It may be used by several goroutines at once.
type Client struct {
	http     *http.Client
	pins     map[string]string
	maxBytes int64
	timeout  time.Duration
}

var _ did.Fetcher = (*Client)(nil)

// New returns a Client. options may be nil.
func New(options *Options) *Client {
	var o Options
	if options != nil {
		o = *options
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.Timeout <= 0 {
		o.Timeout = 20 * time.Second
	}
	if o.MaxRedirects == 0 {
		o.MaxRedirects = 3
	}
	c := &Client{pins: maps.Clone(o.Pins), maxBytes: o.MaxBytes, timeout: o.Timeout}
	c.http = &http.Client{
		CheckRedirect: redirects(o.MaxRedirects),
		Transport: &http.Transport{
			// No Proxy: it would resolve names itself, out of reach of the check.
			DialContext:            c.dial,
			TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // the size of what arrives is the size that counts
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConns:           64,
			MaxIdleConnsPerHost:    2,
			MaxConnsPerHost:        8,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  o.Timeout,
		},
	}
	return c
}

// dial connects to the pin of a host, or to a public address of it.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if pin, ok := c.pins[address]; ok {
		return new(net.Dialer).DialContext(ctx, network, pin)
	}
	dialer := &net.Dialer{
		// Called with the resolved address right before connecting, so that a name cannot change its mind in between.
		ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
			return checkAddress(resolved)
		},
	}
	return dialer.DialContext(ctx, network, address)
}

func redirects(limit int) func(*http.Request, []*http.Request) error {
	return func(request *http.Request, via []*http.Request) error {
		if len(via) > limit {
			return holdfast.Errorf(holdfast.ErrDenied, op, "the server redirects more than %d times", max(limit, 0))
		}
		if err := checkURL(request.URL); err != nil {
			return err
		}
		if first := via[0].URL; hostPort(request.URL) != hostPort(first) {
			return holdfast.Errorf(holdfast.ErrDenied, op, "the server redirects to another host: %s", request.URL.Host)
		}
		return nil
	}
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func checkURL(u *url.URL) error {
	if u.Scheme != "https" || u.Opaque != "" || u.User != nil || u.Hostname() == "" {
		return holdfast.Errorf(holdfast.ErrDenied, op, "only https:// addresses without user are fetched")
	}
	return nil
}

// Fetch returns the body at an https URL. It returns ErrNotFound for status 404 and 410, ErrDenied for an address or
// redirect that is refused, ErrInvalid for a URL that does not parse, a body that is too long or another status from 400
// to 499, ErrUnavailable when the server cannot be reached, is too slow or fails. ctx.Err() is returned as it is.
func (c *Client) Fetch(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, op, "this is not a URL: %w", err)
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, address, nil)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, op, "this is not a URL: %w", err)
	}
	request.Header.Set("User-Agent", "holdfast")
	request.Header.Set("Accept", "application/jsonl, text/jsonl, application/json, */*;q=0.1")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := checkStatus(response); err != nil {
		return nil, err
	}
	return c.read(ctx, response)
}

// transportError finds out whether it was the caller who gave up, this package that refused, or the network.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if refusal, ok := errors.AsType[*holdfast.Error](err); ok {
		return refusal
	}
	return holdfast.Errorf(holdfast.ErrUnavailable, op, "the server cannot be reached: %w", err)
}

func checkStatus(response *http.Response) error {
	switch status := response.StatusCode; {
	case status == http.StatusOK:
		return nil
	case status == http.StatusNotFound || status == http.StatusGone:
		return holdfast.Errorf(holdfast.ErrNotFound, op, "the server answered %d", status)
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		return holdfast.Errorf(holdfast.ErrUnavailable, op, "the server answered %d", status)
	default:
		return holdfast.Errorf(holdfast.ErrInvalid, op, "the server answered %d", status)
	}
}

func (c *Client) read(ctx context.Context, response *http.Response) ([]byte, error) {
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, op, "the server compresses its answer unasked")
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, c.maxBytes+1))
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	if int64(len(body)) > c.maxBytes {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, op, "the answer has more than %d bytes", c.maxBytes)
	}
	return body, nil
}

// Close closes idle connections. The Client can be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }
