//go:build cgo && !nopkcs11 && !nopiv

package custody

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// BenchmarkManyKeys makes b.N wrapped keys on one SoftHSM2 token with 8 callers, restarts, and uses some of them for the
// first time: `go test -run '^$' -bench ManyKeys -benchtime 100000x ./custody`.
func BenchmarkManyKeys(b *testing.B) {
	hsmToken := softhsmtest.TokenFor(b, "many")
	f := &fixture{dir: b.TempDir()}
	f.adjust = func(c *Config) { c.Logger, c.Backends = nil, []BackendConfig{hsmConfig(hsmToken, f.store)} }
	f.start(b)
	defer func() { f.stop(b) }()
	ctx := b.Context()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				r := request(fmt.Sprint("key ", i), holdfast.ES256, holdfast.Wrapped)
				r.Backend = "hsm"
				if _, err := f.service.CreateKey(ctx, r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
	b.StopTimer()
	f.stop(b)
	debug.FreeOSMemory()
	start := time.Now()
	f.start(b)
	b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "restart-ms")
	digest := make([]byte, 32)
	times := make([]time.Duration, min(b.N, 2000))
	for i := range times {
		name := fmt.Sprint("key ", 1+rand.N(b.N))
		start := time.Now()
		if _, err := f.service.Sign(ctx, name, digest); err != nil {
			b.Fatal(err)
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "first-use-ms")
	b.ReportMetric(residentMiB(b), "RSS-MiB")
}

// residentMiB returns the resident memory of this process.
func residentMiB(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		b.Fatal(err)
	}
	return float64(kib) / 1024
}
