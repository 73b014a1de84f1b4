package custody

import (
	"context"
	"math"
	"sync/atomic"
)

// gate counts those inside something that can be shut: uses of a key, calls of the service. Entering and leaving is one
// atomic addition each.
type gate struct {
	n    atomic.Int64  // those inside; far below zero when shut
	idle chan struct{} // tells the one who shuts that the last one left; set before n says shut
}

const shut = math.MinInt64 / 2

// enter reports whether the caller is inside now, and has to leave.
func (g *gate) enter() bool {
	if g.n.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

// leave undoes enter.
func (g *gate) leave() {
	if g.n.Add(-1) == shut {
		select {
		case g.idle <- struct{}{}:
		default: // it was told already
		}
	}
}

// shut lets nobody in any more and waits until all have left. When ctx ends first, the gate is open again. Only one
// goroutine at a time may shut a gate.
func (g *gate) shut(ctx context.Context) error {
	g.idle = make(chan struct{}, 1)
	if g.n.Add(shut) == shut {
		return nil
	}
	return g.wait(ctx)
}

// shutFromInside is shut for somebody who is inside, and has left when it returns. Nobody can have retired the gate.
func (g *gate) shutFromInside(ctx context.Context) error {
	g.idle = make(chan struct{}, 1)
	g.n.Add(shut)
	g.leave()
	return g.wait(ctx)
}

func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		g.n.Add(-shut)
		return ctx.Err()
	}
}

// retire shuts the gate if nobody is inside.
func (g *gate) retire() bool { return g.n.CompareAndSwap(0, shut) }
