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
