package custody

import (
	"context"
	"crypto/ecdh"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"holdfast"
)

// plain is a backend without any optional interface.
type plain struct{ b holdfast.Backend }

func (p plain) Capabilities() holdfast.Capabilities { return p.b.Capabilities() }
func (p plain) Generate(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	k, err := p.b.Generate(ctx, spec)
	return plainKey{k}, err
}
func (p plain) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	k, err := p.b.Key(ctx, ref)
	return plainKey{k}, err
}
func (p plain) Keys(ctx context.Context) iter.Seq2[holdfast.Key, error] { return p.b.Keys(ctx) }
func (p plain) Close() error                                            { return p.b.Close() }

// plainKey is a key without any optional interface; that it embeds one does not make those of its dynamic type its own.
type plainKey struct{ holdfast.Key }

// withDevice restarts the fixture with its device decorated.
func (f *fixture) withDevice(t *testing.T, decorate func(holdfast.Backend) holdfast.Backend) {
	t.Helper()
	f.stop(t)
	f.adjust = func(c *Config) {
		open := c.Backends[0].Open
		c.Backends[0].Open = func(ctx context.Context) (holdfast.Backend, error) {
			b, err := open(ctx)
			if err != nil {
				return nil, err
			}
			return decorate(b), nil
		}
	}
	f.start(t)
}

func TestDeviceThatCanDoLittle(t *testing.T) {
	f := newFixture(t)
	f.create(t, "resident", holdfast.ES256, holdfast.Resident)
	f.create(t, "wrapped", holdfast.ES256, holdfast.Wrapped)
	f.create(t, "agree", holdfast.ECDHP256, holdfast.Resident)
	f.create(t, "encrypt", holdfast.A256GCM, holdfast.Resident)
	peer := f.create(t, "peer", holdfast.ECDHP256, holdfast.Resident)
	f.withDevice(t, func(b holdfast.Backend) holdfast.Backend { return plain{b} })
	ctx := t.Context()
	if _, err := f.service.Sign(ctx, "resident", make([]byte, 32)); err != nil {
		t.Error(err)
	}
	_, create := f.service.CreateKey(ctx, request("new", holdfast.ES256, holdfast.Resident))
	_, load := f.service.Sign(ctx, "wrapped", make([]byte, 32))
	_, agreement := f.service.Agree(ctx, "agree", peer.Public.(*ecdh.PublicKey))
	_, encryption := f.service.Encrypt(ctx, "encrypt", nil, nil)
	_, attestation := f.service.Attest(ctx, "resident", nil)
	_, sealing := f.service.Seal(ctx, "soft", holdfast.NewSecret([]byte("x")), nil)
	for what, err := range map[string]error{
		"create": create, "load": load, "agree": agreement, "encrypt": encryption, "attest": attestation, "seal": sealing,
		"destroy": f.service.DestroyKey(ctx, "resident"),
		"unlock":  f.service.UnlockBackend(ctx, "soft", holdfast.NewSecret([]byte("1234"))),
	} {
		wantCode(t, what, err, holdfast.ErrUnsupported)
	}
	if err := f.service.DestroyKey(ctx, "wrapped"); err != nil {
		t.Errorf("a wrapped key needs no device to be destroyed: %v", err)
	}
	if st, err := f.service.ProbeBackend(ctx, "soft"); err != nil || !st.Available || st.PIN != nil || st.Seals {
		t.Errorf("%+v, %v", st, err)
	}
	_, err := f.service.CreateKey(ctx, request("new", holdfast.ES256, holdfast.Wrapped))
	wantCode(t, "a wrapped key without a blob", err, holdfast.ErrInternal)
}

// pinned is a device with something to say of its PIN.
type pinned struct {
	holdfast.Backend
	status holdfast.PINStatus
	err    error
}

func (p pinned) Unwrap() holdfast.Backend                              { return p.Backend }
func (p pinned) Unlock(context.Context, holdfast.Secret) error         { return p.err }
func (p pinned) PINStatus(context.Context) (holdfast.PINStatus, error) { return p.status, p.err }

func TestWhatADeviceSaysOfItsPIN(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		device  pinned
		concern string // a part of it; empty for none
	}{
		{pinned{status: holdfast.PINStatus{Retries: 3}}, ""},
		{pinned{status: holdfast.PINStatus{Retries: 2, Refused: true}}, "run `holdfast backend unlock soft`"},
		{pinned{status: holdfast.PINStatus{Retries: 1, Note: "last try"}}, "last try"},
		{pinned{err: errors.New("it mumbles")}, ""},
	} {
		f.withDevice(t, func(b holdfast.Backend) holdfast.Backend {
			c.device.Backend = b
			return c.device
		})
		st := f.service.Backends(t.Context())[0]
		if c.device.err == nil && (st.PIN == nil || *st.PIN != c.device.status) ||
			c.device.err != nil && st.PIN != nil {
			t.Errorf("%+v: got %+v", c.device, st.PIN)
		}
		got := strings.Join(st.Concerns, "\n")
		if c.concern != "" && !strings.Contains(got, c.concern) || c.concern == "" && strings.Contains(got, "PIN") {
			t.Errorf("%+v: %q", c.device, st.Concerns)
		}
	}
	f.withDevice(t, func(b holdfast.Backend) holdfast.Backend {
		return pinned{Backend: b, err: &holdfast.Error{Op: "unlock", Code: holdfast.ErrAuth, Retries: 1}}
	})
	err := f.service.UnlockBackend(t.Context(), "soft", holdfast.NewSecret([]byte("0000")))
	wantCode(t, "unlock with a wrong PIN", err, holdfast.ErrAuth)
}

func TestBackendThatIsNotConfiguredAnyMore(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.create(t, "b", holdfast.ES256, holdfast.Wrapped)
	f.stop(t)
	f.adjust = func(c *Config) { c.Backends = nil }
	f.start(t)
	list := f.service.Backends(t.Context())
	if len(list) != 1 || list[0].Name != "soft" || list[0].KeyCount != 2 || list[0].Available || list[0].Reason == nil {
		t.Errorf("%+v", list)
	}
	for _, name := range []string{"a", "b"} {
		_, err := f.service.Sign(t.Context(), name, make([]byte, 32))
		wantCode(t, "sign with "+name, err, holdfast.ErrUnavailable)
	}
	wantCode(t, "destroy a resident key", f.service.DestroyKey(t.Context(), "a"), holdfast.ErrUnavailable)
	keys, _, err := f.service.Keys(t.Context(), ListOptions{})
	if err != nil || !slices.ContainsFunc(keys, func(k Key) bool { return k.Name == "a" && !k.Destroying }) {
		t.Errorf("%+v, %v", keys, err)
	}
}

func TestAttestation(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	files, err := f.service.Attest(t.Context(), "a", []byte("nonce"))
	if err != nil || len(files) != 3 {
		t.Errorf("%d files, %v", len(files), err)
	}
	_, err = f.service.Attest(t.Context(), "a", make([]byte, 65))
	wantCode(t, "a long nonce", err, holdfast.ErrInvalid)
	_, err = f.service.Attest(t.Context(), "b", nil)
	wantCode(t, "no such key", err, holdfast.ErrNotFound)
}

// TestLongestPlaintext checks that everything that can be encrypted can be decrypted.
func TestLongestPlaintext(t *testing.T) {
	f := newFixture(t)
	f.create(t, "kek", holdfast.A256GCM, holdfast.Resident)
	longest := make([]byte, holdfast.MaxMessage)
	sealed, err := f.service.Encrypt(t.Context(), "kek", longest, nil)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := f.service.Decrypt(t.Context(), "kek", sealed, nil)
	if err != nil || len(opened) != len(longest) {
		t.Errorf("%d bytes, %v", len(opened), err)
	}
	_, err = f.service.Encrypt(t.Context(), "kek", append(longest, 0), nil)
	wantCode(t, "a longer plaintext", err, holdfast.ErrInvalid)
	_, err = f.service.Decrypt(t.Context(), "kek", append(sealed, 0), nil)
	wantCode(t, "a longer ciphertext", err, holdfast.ErrInvalid)
	_, err = f.service.Encrypt(t.Context(), "kek", nil, append(longest, 0))
	wantCode(t, "longer additional data", err, holdfast.ErrInvalid)
}
