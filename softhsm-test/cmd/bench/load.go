package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what one measurement showed.
type sample struct {
	rate     float64 // signatures per second
	p50, p99 float64 // latency of one operation in milliseconds
}

// operation is one thing that callers do again and again.
type operation struct {
	do func(context.Context) error

	// signatures is how many signatures one operation makes.
	signatures int
}

// measure lets callers do the operation, each one after another, for a tenth of the window unseen and then for the
// window. The first error ends it.
func (op operation) measure(ctx context.Context, callers int, window time.Duration) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now().Add(window / 10)
	end := begin.Add(window)
	latencies := make([][]time.Duration, callers)
	var done atomic.Int64 // operations that ended within the window
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for start := time.Now(); start.Before(end); {
				if err := op.do(ctx); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				if now.After(begin) && now.Before(end) {
					done.Add(1)
				}
				if start.After(begin) {
					latencies[i] = append(latencies[i], now.Sub(start))
				}
				start = now
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return sample{}, err
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return sample{
		rate: float64(done.Load()) * float64(op.signatures) / window.Seconds(),
		p50:  milliseconds(percentile(all, 0.50)),
		p99:  milliseconds(percentile(all, 0.99)),
	}, nil
}

// percentile returns the value that a share p of sorted does not exceed; 0 of nothing.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median returns the middle of values, the mean of the two middle ones of an even number, and 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	m := len(values) / 2
	if len(values)%2 == 0 {
		return (values[m-1] + values[m]) / 2
	}
	return values[m]
}
