package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// The load with which wrapped keys are made, and how many of them are used for the first time after a restart.
const (
	wrappedCallers   = 32
	wrappedFirstUses = 2000
)

// wrappedKeys makes many wrapped keys on one token through the daemon, restarts it, and uses some.
func (l *lab) wrappedKeys(ctx context.Context) (err error) {
	if !l.report.wants("wrapped", "keys", "create_per_s", "create_raw_per_s", "create_last_tenth_per_s", "first_use_ms",
		"rss_mib", "rss_peak_mib", "restart_ms") {
		return nil
	}
	l.say("%d wrapped keys", l.wrapped)
	rawRate, err := l.wrapRaw(ctx)
	if err != nil {
		return fmt.Errorf("raw token: %w", err)
	}
	token, err := l.token("wrapped")
	if err != nil {
		return err
	}
	d, cfg, err := l.start(ctx, "wrapper", daemon.Backend{Name: "hsm", Token: token})
	if err != nil {
		return err
	}
	rate, last, err := l.createWrapped(ctx, d)
	if err != nil {
		return errors.Join(err, d.Kill())
	}
	before, err := d.Memory()
	if err != nil {
		return errors.Join(err, d.Kill())
	}
	if err := stop(ctx, d); err != nil {
		return err
	}
	restart, d, err := l.restart(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(ctx, d)) }()
	firstUse, err := l.useWrapped(ctx, d)
	if err != nil {
		return err
	}
	after, err := d.Memory()
	if err != nil {
		return err
	}
	resident, peak := max(before.Resident, after.Resident), max(before.Peak, after.Peak)
	show := func(name, title, unit string, value float64, better direction, text string) {
		verdict := l.report.add("wrapped."+name, value, unit, better)
		l.report.line(title, unit, "", "", text, "", "", verdict)
	}
	show("keys", "wrapped keys on one softhsm2 token", "1", float64(l.wrapped), higher, fmt.Sprint(l.wrapped))
	l.report.add("wrapped.create_raw_per_s", rawRate, "1/s", higher)
	verdict := l.report.add("wrapped.create_per_s", rate, "1/s", higher)
	l.report.line("wrapped keys, made", "1/s", whole(rawRate), "", whole(rate), "", number2(rate/rawRate), verdict)
	show("create_last_tenth_per_s", "wrapped keys, the last tenth of them made", "1/s", last, higher, whole(last))
	show("first_use_ms", "wrapped key, first signature after restart", "ms", firstUse, lower, number3(firstUse))
	show("rss_mib", "daemon with wrapped keys, resident", "MiB", mebibytes(resident), lower, whole(mebibytes(resident)))
	show("rss_peak_mib", "daemon with wrapped keys, resident at most", "MiB", mebibytes(peak), lower, whole(mebibytes(peak)))
	show("restart_ms", "daemon with wrapped keys, start", "ms", restart, lower, whole(restart))
	return nil
}

// wrapRaw measures how many wrapped keys per second a token used directly makes.
func (l *lab) wrapRaw(ctx context.Context) (rate float64, err error) {
	token, err := l.token("rawwrap")
	if err != nil {
		return 0, err
	}
	direct, err := openRawToken(token)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, direct.close()) }()
	op, err := direct.wrapper()
	if err != nil {
		return 0, err
	}
	s, err := op.measure(ctx, wrappedCallers, l.window)
	return s.rate, err
}

func wrappedName(i int) string { return fmt.Sprintf("pairwise %06d", i) }

// createWrapped makes the keys from several callers, and returns how many per second over all and over the last tenth.
func (l *lab) createWrapped(ctx context.Context, d *daemon.Daemon) (rate, last float64, err error) {
	b, err := d.Client.Backend(ctx, "hsm", func(holdfast.Algorithm) string { return "pairwise" })
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	tenth := l.wrapped - l.wrapped/10
	var tenthBegan time.Time // set by the one caller that makes the key called tenth, read when all are done
	began := time.Now()
	var wg sync.WaitGroup
	for range wrappedCallers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < l.wrapped; i = int(next.Add(1)) - 1 {
				if i == tenth {
					tenthBegan = time.Now()
				}
				spec := holdfast.KeySpec{Label: wrappedName(i), Algorithm: holdfast.ES256, Residence: holdfast.Wrapped}
				if _, err := b.Generate(ctx, spec); err != nil {
					cancel(fmt.Errorf("wrapped key %d: %w", i, err))
					return
				}
			}
		})
	}
	wg.Wait()
	ended := time.Now()
	if err := context.Cause(ctx); err != nil {
		return 0, 0, err
	}
	return float64(l.wrapped) / ended.Sub(began).Seconds(), float64(l.wrapped-tenth) / ended.Sub(tenthBegan).Seconds(), nil
}

// useWrapped signs with keys that this daemon has not used before, one after another, and returns the median in
// milliseconds.
func (l *lab) useWrapped(ctx context.Context, d *daemon.Daemon) (float64, error) {
	b, err := d.Client.Backend(ctx, "hsm", nil)
	if err != nil {
		return 0, err
	}
	// Any seed will do: only the same key twice would be wrong.
	order := rand.New(rand.NewPCG(1, 2)).Perm(l.wrapped)
	uses := min(wrappedFirstUses, l.wrapped)
	chosen := make(map[string]bool, uses)
	for _, i := range order[:uses] {
		chosen[wrappedName(i)] = true
	}
	digest := holdfast.ES256.Digest([]byte(message))
	var times []float64
	for key, err := range b.Keys(ctx) {
		if err != nil {
			return 0, err
		}
		named, ok := key.(interface{ Name() string })
		if !ok || !chosen[named.Name()] {
			continue
		}
		began := time.Now()
		signature, err := key.Sign(ctx, digest, nil)
		took := time.Since(began)
		if err != nil {
			return 0, fmt.Errorf("first use of %s: %w", named.Name(), err)
		}
		if err := holdfast.Verify(holdfast.ES256, key.Public(), digest, signature); err != nil {
			return 0, fmt.Errorf("first use of %s: %w", named.Name(), err)
		}
		times = append(times, milliseconds(took))
	}
	if len(times) != uses {
		return 0, fmt.Errorf("of %d wrapped keys to use, %d were there after the restart", uses, len(times))
	}
	return median(times), nil
}
