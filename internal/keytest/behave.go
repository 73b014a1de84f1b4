package keytest

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"holdfast"
)

func wantCode(t *testing.T, err error, want holdfast.Code, what string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want code %q", what, err, want.Error())
	}
}

func samePublic(a, b crypto.PublicKey) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

func (s *suite) capabilities(t *testing.T) {
	caps := s.open(t).Capabilities()
	if caps.Kind == "" || caps.Device == (holdfast.Device{}) {
		t.Errorf("the backend does not say what it is: %+v", caps)
	}
	var resident, wrapped []holdfast.Algorithm
	for _, sup := range caps.Algorithms {
		if !sup.Algorithm.Valid() {
			t.Errorf("unknown algorithm %q", sup.Algorithm)
		}
		if sup.Resident {
			resident = append(resident, sup.Algorithm)
		}
		if sup.Wrapped {
			wrapped = append(wrapped, sup.Algorithm)
		}
	}
	compareSets(t, "resident", resident, s.Resident)
	compareSets(t, "wrapped", wrapped, s.Wrapped)
	if d := caps.DefaultResidence; d != holdfast.Resident && d != holdfast.Wrapped {
		t.Errorf("the default residence is %d", d)
	}
}

func compareSets(t *testing.T, what string, got, want []holdfast.Algorithm) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s algorithms are %v, want %v", what, got, want)
	}
}

func (s *suite) interfaces(t *testing.T) { s.checkInterfaces(t, s.open(t)) }

// decorated checks that a decorator hides nothing and changes nothing of what As finds.
func (s *suite) decorated(t *testing.T) {
	s.checkInterfaces(t, decorator{decorator{s.open(t)}})
}

type decorator struct{ holdfast.Backend }

func (d decorator) Unwrap() holdfast.Backend { return d.Backend }

func (s *suite) checkInterfaces(t *testing.T, b holdfast.Backend) {
	t.Helper()
	has := map[Interface]bool{
		Destroyer: found[holdfast.Destroyer](b), Planner: found[holdfast.Planner](b), Loader: found[holdfast.Loader](b),
		Sealer: found[holdfast.Sealer](b), Unlocker: found[holdfast.Unlocker](b), Prober: found[holdfast.Prober](b),
	}
	for i, ok := range has {
		if ok != s.needs(i) {
			t.Errorf("%s: offered is %v, want %v", i, ok, s.needs(i))
		}
	}
	if p, ok := holdfast.As[holdfast.Prober](b); ok {
		if err := p.Probe(t.Context()); err != nil {
			t.Errorf("probe: %v", err)
		}
	}
}

func found[T any](b holdfast.Backend) bool {
	_, ok := holdfast.As[T](b)
	return ok
}

func (s *suite) badSpec(t *testing.T) {
	b := s.open(t)
	a, r := s.any()
	for name, spec := range map[string]holdfast.KeySpec{
		"zero":              {},
		"no label":          {Algorithm: a},
		"no algorithm":      {Label: "x"},
		"unknown algorithm": {Label: "x", Algorithm: "HS256"},
		"slash":             {Label: "a/b", Algorithm: a, Residence: r},
		"control character": {Label: "a\nb", Algorithm: a, Residence: r},
		"long label":        {Label: strings.Repeat("x", holdfast.MaxLabel+1), Algorithm: a, Residence: r},
		"residence":         {Label: "x", Algorithm: a, Residence: 9},
		"PIN policy":        {Label: "x", Algorithm: a, Residence: r, PIN: 9},
		"identifier":        {Label: "x", Algorithm: a, Residence: r, ID: []byte{1}},
		"wrapped in place":  {Label: "x", Algorithm: a, Residence: holdfast.Wrapped, Place: "9a"},
	} {
		_, err := b.Generate(t.Context(), spec)
		wantCode(t, err, holdfast.ErrInvalid, name)
	}
}

func (s *suite) any() (holdfast.Algorithm, holdfast.Residence) {
	if len(s.Resident) > 0 {
		return s.Resident[0], holdfast.Resident
	}
	return s.Wrapped[0], holdfast.Wrapped
}

func (s *suite) badRef(t *testing.T) {
	b := s.open(t)
	for _, ref := range []holdfast.Ref{"", "x", "http://example.org/", "pkcs11", "\x00", "tpm:", "piv:", "pkcs11:pin-value=1234"} {
		if _, err := b.Key(t.Context(), ref); !errors.Is(err, holdfast.ErrInvalid) && !errors.Is(err, holdfast.ErrNotFound) {
			t.Errorf("ref %q: got error %v", ref, err)
		}
	}
}

func (s *suite) unsupported(t *testing.T) {
	b := s.open(t)
	for _, a := range holdfast.Algorithms() {
		for r, has := range map[holdfast.Residence][]holdfast.Algorithm{holdfast.Resident: s.Resident, holdfast.Wrapped: s.Wrapped} {
			if slices.Contains(has, a) {
				continue
			}
			_, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: a, Residence: r})
			wantCode(t, err, holdfast.ErrUnsupported, string(a)+" "+r.String())
		}
	}
}

func (s *suite) places(t *testing.T) {
	b := s.open(t)
	if len(s.Resident) == 0 {
		return
	}
	_, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "x", Algorithm: s.Resident[0], Residence: holdfast.Resident, Place: "nowhere"})
	if !errors.Is(err, holdfast.ErrInvalid) && !errors.Is(err, holdfast.ErrUnsupported) {
		t.Errorf("a place that no device has: %v", err)
	}
}

// plan checks that a planned key gets the planned ref, that its place is then taken, and that Destroy of a plan that was
// never carried out says so.
func (s *suite) plan(t *testing.T) {
	b := s.open(t)
	p, ok := holdfast.As[holdfast.Planner](b)
	if !ok || len(s.Resident) == 0 {
		if s.needs(Planner) {
			t.Error("the backend is no Planner")
		}
		return
	}
	d, ok := holdfast.As[holdfast.Destroyer](b)
	if !ok {
		t.Fatal("a Planner that is no Destroyer leaves half-made keys behind")
	}
	spec, ref, err := p.Plan(t.Context(), holdfast.KeySpec{Label: s.label("planned"), Algorithm: s.Resident[0], Residence: holdfast.Resident})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	wantCode(t, d.Destroy(t.Context(), ref), holdfast.ErrNotFound, "destroying a key that was only planned")
	k := s.generate(t, b, spec)
	if k.Ref() != ref {
		t.Errorf("planned %s, made %s", ref, k.Ref())
	}
	_, err = b.Generate(t.Context(), spec)
	wantCode(t, err, holdfast.ErrExists, "the same plan twice")
	if err := d.Destroy(t.Context(), ref); err != nil {
		t.Errorf("destroy: %v", err)
	}
	if len(s.Wrapped) > 0 {
		spec := holdfast.KeySpec{Label: "x", Algorithm: s.Wrapped[0], Residence: holdfast.Wrapped}
		_, _, err := p.Plan(t.Context(), spec)
		wantCode(t, err, holdfast.ErrInvalid, "planning a wrapped key, which has no place")
	}
}

// blob checks that wrapped keys which were truncated or edited are refused and never sign.
func (s *suite) blob(t *testing.T) {
	b := s.open(t)
	l, ok := holdfast.As[holdfast.Loader](b)
	if !ok || len(s.Wrapped) == 0 {
		return
	}
	k := s.generate(t, b, holdfast.KeySpec{Label: s.label("blob"), Algorithm: s.Wrapped[0], Residence: holdfast.Wrapped})
	blob := s.blobOf(t, k, holdfast.Wrapped)
	check := func(edited []byte, what string) {
		t.Helper()
		got, err := l.Load(t.Context(), edited)
		if err == nil {
			_, err = got.Sign(t.Context(), got.Algorithm().Digest([]byte("x")), nil)
		}
		if !errors.Is(err, holdfast.ErrIntegrity) && !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
	check(nil, "an empty blob")
	for n := 1; n < len(blob); n += 7 {
		check(blob[:n], "a truncated blob")
	}
	check(append(bytes.Clone(blob), 0), "a blob with a byte too many")
	for i := range blob {
		edited := bytes.Clone(blob)
		edited[i] ^= 0x04
		check(edited, "a blob edited at byte "+strconv.Itoa(i))
	}
	got, err := l.Load(t.Context(), blob)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	s.use(t, got)
}

func (s *suite) seal(t *testing.T) {
	b := s.open(t)
	sealer, ok := holdfast.As[holdfast.Sealer](b)
	if !ok {
		return
	}
	ctx := t.Context()
	for _, n := range []int{1, 32, 128, 129, 70000} {
		secret := bytes.Repeat([]byte{0xA5}, n)
		blob, err := sealer.Seal(ctx, holdfast.NewSecret(bytes.Clone(secret)), nil)
		if err != nil {
			t.Fatalf("seal %d bytes: %v", n, err)
		}
		if bytes.Contains(blob, secret[:min(n, 8)]) && n >= 8 {
			t.Fatal("the sealed blob holds the secret in the clear")
		}
		got, err := sealer.Unseal(ctx, blob, nil)
		if err != nil || !bytes.Equal(got.Bytes(), secret) {
			t.Fatalf("unseal %d bytes: %v", n, err)
		}
		for _, i := range []int{0, len(blob) / 2, len(blob) - 1} {
			edited := bytes.Clone(blob)
			edited[i] ^= 1
			if _, err := sealer.Unseal(ctx, edited, nil); !errors.Is(err, holdfast.ErrIntegrity) && !errors.Is(err, holdfast.ErrInvalid) {
				t.Errorf("an edited sealed blob: %v", err)
			}
		}
	}
	_, err := sealer.Seal(ctx, holdfast.Secret{}, nil)
	wantCode(t, err, holdfast.ErrInvalid, "sealing nothing")
}

func (s *suite) concurrent(t *testing.T) {
	b := s.open(t)
	a, r, ok := s.first(holdfast.UseSign)
	if !ok {
		t.Fatal("no signature algorithm")
	}
	keys := []holdfast.Key{
		s.generate(t, b, holdfast.KeySpec{Label: s.label("one"), Algorithm: a, Residence: r}),
		s.generate(t, b, holdfast.KeySpec{Label: s.label("two"), Algorithm: a, Residence: r}),
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			k := keys[i%2]
			for j := range 4 {
				digest := a.Digest([]byte{byte(i), byte(j)})
				signature, err := k.Sign(t.Context(), digest, nil)
				if err == nil {
					err = holdfast.Verify(a, k.Public(), digest, signature)
				}
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

func (s *suite) canceled(t *testing.T) {
	b := s.open(t)
	a, r, _ := s.first(holdfast.UseSign)
	k := s.generate(t, b, holdfast.KeySpec{Label: s.label("canceled"), Algorithm: a, Residence: r})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Sign(ctx, a.Digest(nil), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("sign under an ended context: %v", err)
	}
	if _, err := b.Generate(ctx, holdfast.KeySpec{Label: s.label("never"), Algorithm: a, Residence: r}); !errors.Is(err, context.Canceled) {
		t.Errorf("generate under an ended context: %v", err)
	}
}

func (s *suite) closed(t *testing.T) {
	b := s.Open(t)
	a, r, _ := s.first(holdfast.UseSign)
	k, err := b.Generate(t.Context(), holdfast.KeySpec{Label: s.label("closed"), Algorithm: a, Residence: r})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	_, err = k.Sign(t.Context(), a.Digest(nil), nil)
	wantCode(t, err, holdfast.ErrUnavailable, "signing on a closed backend")
	_, err = b.Generate(t.Context(), holdfast.KeySpec{Label: s.label("closed"), Algorithm: a, Residence: r})
	wantCode(t, err, holdfast.ErrUnavailable, "generating on a closed backend")
	again := s.open(t)
	s.destroyLater(t, again, k.Ref(), r)
}

func (s *suite) pin(t *testing.T) {
	u, ok := holdfast.As[holdfast.Unlocker](s.open(t))
	if !ok {
		return
	}
	status, err := u.PINStatus(t.Context())
	if err != nil || status.Refused {
		t.Errorf("PIN status: %+v, %v", status, err)
	}
	wantCode(t, u.Unlock(t.Context(), holdfast.Secret{}), holdfast.ErrInvalid, "an empty PIN")
}
