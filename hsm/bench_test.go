//go:build cgo && !nopkcs11

package hsm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// benchCallers is how many callers sign at the same time.
const benchCallers = 64

// rawPool signs as plainly as miekg/pkcs11 allows: what the backend is measured against.
type rawPool struct {
	p11      *pkcs11.Ctx
	sessions chan pkcs11.SessionHandle
	key      pkcs11.ObjectHandle
	mech     []*pkcs11.Mechanism
}

func newRawPool(b *testing.B, from *Backend, k *residentKey, n int) *rawPool {
	b.Helper()
	p11 := pkcs11.New(from.cfg.Module) // initialized by the backend, which has logged in the whole process too
	c := from.current.Load()
	p := &rawPool{p11: p11, sessions: make(chan pkcs11.SessionHandle, n), key: k.bound.Load().handle, mech: k.mech}
	for range n {
		s, err := p11.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			b.Fatal(err)
		}
		p.sessions <- s
		b.Cleanup(func() { _ = p11.CloseSession(s) })
	}
	return p
}

func (p *rawPool) sign(data []byte) error {
	s := <-p.sessions
	defer func() { p.sessions <- s }()
	if err := p.p11.SignInit(s, p.mech, p.key); err != nil {
		return err
	}
	_, err := p.p11.Sign(s, data)
	return err
}

// callAll has n goroutines share b.N calls.
func callAll(b *testing.B, n int, call func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	before := cpuTime()
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "call/s")
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/call")
}

// cpuTime returns the processor time this process has used. On a busy machine it compares better than elapsed time.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkSign compares signing through the backend with a bare pool of as many sessions.
func BenchmarkSign(b *testing.B) {
	hsm, _ := softHSM(b)
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.EdDSA, holdfast.RS256_2048} {
		made, err := hsm.Generate(b.Context(), holdfast.KeySpec{Label: "bench " + string(a), Algorithm: a})
		if err != nil {
			b.Fatal(err)
		}
		k := made.(*residentKey)
		digest := testDigest(a)
		raw := newRawPool(b, hsm, k, hsm.cfg.sessions(0))
		for _, callers := range []int{1, 4, benchCallers} {
			b.Run(fmt.Sprintf("%s/c%d/raw", a, callers), func(b *testing.B) {
				callAll(b, callers, func() error { return raw.sign(input(a, digest)) })
			})
			b.Run(fmt.Sprintf("%s/c%d/hsm", a, callers), func(b *testing.B) {
				b.ReportAllocs()
				callAll(b, callers, func() error { _, err := k.Sign(b.Context(), digest, nil); return err })
			})
		}
	}
}

// BenchmarkGenerateWrapped makes wrapped keys with several callers.
func BenchmarkGenerateWrapped(b *testing.B) {
	hsm, _ := softHSM(b)
	spec := holdfast.KeySpec{Label: "bench", Algorithm: holdfast.ES256, Residence: holdfast.Wrapped}
	if _, err := hsm.Generate(b.Context(), spec); err != nil {
		b.Fatal(err)
	}
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("c%d", callers), func(b *testing.B) {
			callAll(b, callers, func() error { _, err := hsm.Generate(b.Context(), spec); return err })
		})
	}
}

// BenchmarkWrappedSign measures the first use of a wrapped key, which unwraps it, and later ones.
func BenchmarkWrappedSign(b *testing.B) {
	hsm, _ := softHSM(b)
	made, err := hsm.Generate(b.Context(), holdfast.KeySpec{Label: "bench", Algorithm: holdfast.ES256, Residence: holdfast.Wrapped})
	if err != nil {
		b.Fatal(err)
	}
	blob := made.(holdfast.WrappedKey).Blob()
	digest := testDigest(holdfast.ES256)
	b.Run("first", func(b *testing.B) {
		callAll(b, 1, func() error {
			k, err := hsm.Load(b.Context(), blob)
			if err != nil {
				return err
			}
			hsm.current.Load().unwrapped.forget()
			_, err = k.Sign(b.Context(), digest, nil)
			return err
		})
	})
	b.Run("cached", func(b *testing.B) {
		callAll(b, 1, func() error { _, err := made.Sign(b.Context(), digest, nil); return err })
	})
}

// BenchmarkOverhead measures what a call costs without the token: finding a session, the watchdog, and the way back.
func BenchmarkOverhead(b *testing.B) {
	hsm, _ := softHSM(b)
	for _, callers := range []int{1, benchCallers} {
		b.Run(fmt.Sprintf("c%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			callAll(b, callers, func() error {
				_, err := ask(b.Context(), hsm, func(*session) ([]byte, error) { return nil, nil })
				return err
			})
		})
	}
}
