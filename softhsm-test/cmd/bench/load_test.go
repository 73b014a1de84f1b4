package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 2, 9}, 3},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	sorted := make([]time.Duration, 100)
	for i := range sorted {
		sorted[i] = time.Duration(i + 1)
	}
	for p, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := percentile(sorted, p); got != want {
			t.Errorf("percentile %v is %d, want %d", p, got, want)
		}
	}
}

func TestShare(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for _, test := range []struct {
		start, stop int
		want        float64
	}{
		{10, 11, 1}, {8, 10, 0}, {9, 11, 0.5}, {19, 21, 0.5}, {20, 22, 0}, {5, 25, 0.5}, {12, 12, 1},
	} {
		if got := share(at(test.start), at(test.stop), at(10), at(20)); got != test.want {
			t.Errorf("share of %d to %d is %v, want %v", test.start, test.stop, got, test.want)
		}
	}
}

func TestMeasureCountsSignatures(t *testing.T) {
	op := operation{signatures: 16, do: func(context.Context) error { return nil }}
	s, err := op.measure(t.Context(), 2, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if s.rate <= 0 || s.p99 < s.p50 {
		t.Errorf("measured %+v", s)
	}
}

func TestMeasureStopsAtAnError(t *testing.T) {
	broken := errors.New("broken")
	op := operation{signatures: 1, do: func(context.Context) error { return broken }}
	if _, err := op.measure(t.Context(), 4, time.Hour); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

func TestGoals(t *testing.T) {
	if g := (goal{0.6, higher}); g.met(0.59) || !g.met(0.6) {
		t.Error("a higher goal")
	}
	if g := (goal{25, lower}); g.met(25.1) || !g.met(25) {
		t.Error("a lower goal")
	}
}
