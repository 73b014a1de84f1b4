package custody

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast"
)

// nothing is a backend that does nothing, to measure what custody adds: its keys return a ready signature.
type nothing struct{}

func (nothing) Capabilities() holdfast.Capabilities {
	return holdfast.Capabilities{Kind: "nothing", DefaultResidence: holdfast.Wrapped,
		Algorithms: []holdfast.Support{{Algorithm: holdfast.EdDSA, Wrapped: true}}}
}

// nothingKey is a public key that nobody has the private half of; its first bytes name the key.
type nothingKey [32]byte

func (nothing) Generate(_ context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	k := nothingKey(sha256.Sum256(spec.ID))
	return &k, nil
}

func (nothing) Load(_ context.Context, blob []byte) (holdfast.Key, error) {
	k := nothingKey(blob)
	return &k, nil
}

func (nothing) Key(context.Context, holdfast.Ref) (holdfast.Key, error) {
	return nil, holdfast.ErrNotFound
}
func (nothing) Keys(context.Context) iter.Seq2[holdfast.Key, error] {
	return func(func(holdfast.Key, error) bool) {}
}
func (nothing) Close() error { return nil }

func (k *nothingKey) Ref() holdfast.Ref             { return holdfast.Ref(fmt.Sprintf("nothing:%x", k[:8])) }
func (k *nothingKey) Algorithm() holdfast.Algorithm { return holdfast.EdDSA }
func (k *nothingKey) Public() crypto.PublicKey      { return ed25519.PublicKey(k[:]) }
func (k *nothingKey) Blob() []byte                  { return k[:] }
func (k *nothingKey) Sign(context.Context, []byte, crypto.SignerOpts) ([]byte, error) {
	return k[:], nil
}

func newBenchmark(b *testing.B) *fixture {
	b.Helper()
	f := &fixture{dir: b.TempDir(), adjust: func(c *Config) {
		c.Logger = nil
		c.Backends = []BackendConfig{{Name: "soft", Open: func(context.Context) (holdfast.Backend, error) { return nothing{}, nil }}}
	}}
	f.start(b)
	b.Cleanup(func() { f.stop(b) })
	return f
}

// BenchmarkSignOverhead is what custody adds to a signature of a key that is in the cache.
func BenchmarkSignOverhead(b *testing.B) {
	f := newBenchmark(b)
	const keys = 1000
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprint("key ", i)
		f.create(b, names[i], holdfast.EdDSA, holdfast.Wrapped)
	}
	message := []byte("message")
	for _, callers := range []int{1, 64} {
		for what, n := range map[string]int{"one key": 1, "1000 keys": keys} {
			b.Run(fmt.Sprintf("%s/c%d", what, callers), func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				var next atomic.Int64
				ctx := b.Context()
				b.RunParallel(func(pb *testing.PB) {
					i := int(next.Add(7919))
					for pb.Next() {
						i++
						if _, err := f.service.Sign(ctx, names[i%n], message); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkCreate is the creation of wrapped keys by 8 callers on a device that costs nothing: what the store bears.
func BenchmarkCreate(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("c%d", callers), func(b *testing.B) {
			f := newBenchmark(b)
			b.ReportAllocs()
			var next atomic.Int64
			ctx := b.Context()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if _, err := f.service.CreateKey(ctx,
							request(fmt.Sprint("key ", i), holdfast.EdDSA, holdfast.Wrapped)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

// BenchmarkFirstUse is the use of a key that is not in the cache.
func BenchmarkFirstUse(b *testing.B) {
	f := newBenchmark(b)
	const keys = 3 * cacheSize
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, 16)
	for c := range errs {
		wg.Go(func() {
			for i := next.Add(1); i <= keys && errs[c] == nil; i = next.Add(1) {
				_, errs[c] = f.service.CreateKey(b.Context(),
					request(fmt.Sprint("key ", i), holdfast.EdDSA, holdfast.Wrapped))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		if _, err := f.service.Sign(b.Context(), fmt.Sprint("key ", 1+i%keys), nil); err != nil {
			b.Fatal(err)
		}
	}
}
