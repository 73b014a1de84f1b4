package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/softhsm-test/cmd/internal/daemon"
)

// The random moment of a kill: after so many acts were begun, so long later. Making a key in SoftHSM2 takes 20 ms, an
// act of a TPM a few, and a start 100.
const (
	mostActs        = 60
	mostDelay       = 25 * time.Millisecond
	mostStartDelay  = 150 * time.Millisecond
	killAtStartOdds = 4 // one in so many kills is followed by another while the daemon starts
)

// arena is where callers and kills meet.
type arena struct {
	devices  *devices
	cfg      daemon.Config
	rng      *rand.Rand
	callers  []*caller
	own      map[string]rawKeys // what the daemon put on the devices for itself
	token    *tokenFile
	tally    tally
	progress io.Writer // nil tells nobody
}

func newArena(d *devices, dir, binary string, seed uint64) *arena {
	a := &arena{
		devices: d,
		cfg:     daemon.Config{Binary: binary, Dir: filepath.Join(dir, "daemon"), Backends: d.backends()},
		rng:     rand.New(rand.NewPCG(seed, 0)),
	}
	for i, kinds := range d.kinds() {
		a.callers = append(a.callers, newCaller(i+1, kinds, seed))
	}
	return a
}

// fight kills the daemon so many times and returns the first thing that was not as promised.
func (a *arena) fight(ctx context.Context, kills int) error {
	d, _, err := daemon.Start(ctx, a.cfg)
	if err != nil {
		return err
	}
	if d, err = a.settle(ctx, d); err != nil {
		return fmt.Errorf("before the first kill: %w", err)
	}
	if a.token, err = readTokenFile(a.devices.token); err != nil {
		return errors.Join(err, d.Kill())
	}
	for a.tally.kills < kills {
		if d, err = a.round(ctx, d); err != nil {
			return fmt.Errorf("kill %d: %w", a.tally.kills, err)
		}
		if a.progress != nil && a.tally.kills%20 == 0 {
			fmt.Fprintf(a.progress, "%d kills\n", a.tally.kills)
		}
	}
	if err := d.Stop(ctx); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	return a.tally.readLog(d.Log)
}

// round lets callers act, kills the daemon d, checks what the next one makes of it, and returns a third, ready for the
// next round. It ends the daemon in any case.
func (a *arena) round(ctx context.Context, d *daemon.Daemon) (*daemon.Daemon, error) {
	if err := a.disturb(ctx, d); err != nil {
		return nil, err
	}
	a.tally.kills++
	for a.rng.IntN(killAtStartOdds) == 0 {
		if err := a.killStarting(ctx); err != nil {
			return nil, err
		}
	}
	if err := a.countLeft(ctx); err != nil {
		return nil, err
	}
	healed, took, err := daemon.Start(ctx, a.cfg)
	if err != nil {
		return nil, err
	}
	a.tally.slowest = max(a.tally.slowest, took)
	if err := a.checkRecords(ctx, healed); err != nil {
		return nil, errors.Join(err, healed.Kill())
	}
	return a.settle(ctx, healed)
}

// killStarting kills a daemon while it starts, which is when it cleans up and logs in.
func (a *arena) killStarting(ctx context.Context) error {
	d, err := daemon.Launch(a.cfg)
	if err != nil {
		return err
	}
	wait(ctx, a.random(mostStartDelay))
	if err := d.Kill(); err != nil {
		return err
	}
	a.tally.kills++
	a.tally.atStart++
	lost, err := a.token.repair()
	if lost {
		a.tally.tokensLost++
	}
	return err
}

func (a *arena) random(most time.Duration) time.Duration {
	return time.Duration(a.rng.Int64N(int64(most)))
}

// wait waits for a random moment. Nothing happens at its end that could be waited for instead.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// disturb lets the callers act and kills the daemon while they do. It returns an error when one of them fails before.
func (a *arena) disturb(ctx context.Context, d *daemon.Daemon) error {
	for _, c := range a.callers {
		if err := c.connect(ctx, d.Client); err != nil {
			return errors.Join(err, d.Kill())
		}
	}
	var killing atomic.Bool
	var acts atomic.Int64
	enough := int64(1 + a.rng.IntN(mostActs))
	reached, failed := make(chan struct{}), make(chan error, len(a.callers))
	began := func() {
		if acts.Add(1) == enough {
			close(reached)
		}
	}
	var wg sync.WaitGroup
	for _, c := range a.callers {
		wg.Go(func() {
			if err := c.run(ctx, began); !killing.Load() {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-reached:
		wait(ctx, a.random(mostDelay))
	case err = <-failed:
	case <-d.Done():
		err = errors.New("the daemon ended on its own")
	case <-ctx.Done():
		err = ctx.Err()
	}
	killing.Store(true) // from here on calls may fail
	err = errors.Join(err, d.Kill())
	wg.Wait()
	select {
	case first := <-failed:
		err = errors.Join(err, first)
	default:
	}
	a.count()
	return err
}

// count adds up what the callers did in this round.
func (a *arena) count() {
	for _, c := range a.callers {
		for _, k := range c.keys {
			if k.state == creating || k.state == destroying {
				c.counts.interrupted++
			}
		}
		a.tally.add(c.counts)
		c.counts = counts{}
	}
}

// settle stops the daemon d in good order, compares the devices with the records, and starts another daemon.
func (a *arena) settle(ctx context.Context, d *daemon.Daemon) (*daemon.Daemon, error) {
	recorded, err := a.records(ctx, d.Client)
	if err != nil {
		return nil, errors.Join(err, d.Kill())
	}
	if err := d.Stop(ctx); err != nil {
		return nil, fmt.Errorf("stop the daemon: %w", err)
	}
	if err := a.checkStopped(ctx, recorded); err != nil {
		return nil, err
	}
	next, _, err := daemon.Start(ctx, a.cfg)
	return next, err
}
