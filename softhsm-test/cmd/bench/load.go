package main

import (
	"context"
	"slices"
	"sync"
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
//
// An operation counts by the share of its time that lies within the window: whole operations would be too coarse a count
// where one takes a good part of the window.
func (op operation) measure(ctx context.Context, callers int, window time.Duration) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now().Add(window / 10)
	end := begin.Add(window)
	latencies := make([][]time.Duration, callers)
	done := make([]float64, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for start := time.Now(); start.Before(end); {
				if err := op.do(ctx); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				if now.After(begin) {
					latencies[i] = append(latencies[i], now.Sub(start))
					done[i] += share(start, now, begin, end)
				}
				start = now
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return sample{}, err
	}
	var sum float64
	for _, n := range done {
		sum += n
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return sample{
		rate: sum * float64(op.signatures) / window.Seconds(),
		p50:  milliseconds(percentile(all, 0.50)),
		p99:  milliseconds(percentile(all, 0.99)),
	}, nil
}

// share returns which share of the time from start to stop lies between begin and end.
func share(start, stop, begin, end time.Time) float64 {
	if !stop.After(start) {
		return 1
	}
	within := min(stop.UnixNano(), end.UnixNano()) - max(start.UnixNano(), begin.UnixNano())
	return float64(max(within, 0)) / float64(stop.Sub(start))
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
