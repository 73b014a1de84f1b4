package main

import (
	"context"
	"errors"
	"fmt"

	"holdfast"
	"holdfast/api/client"
	"holdfast/api/holdfastpb"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// contest is one measurement of three sides that take turns: the device used directly, and through a daemon that does
// not and does verify what it signs.
type contest struct {
	name      string // of its figures, without the number of callers
	title     string // in the table
	algorithm holdfast.Algorithm
	callers   []int
	batch     bool         // the daemon signs batches
	sides     [3]operation // raw, off, on
}

// The sides of a contest.
const (
	raw = iota
	off
	on
)

// callerCounts are the numbers of callers that sign at once.
var callerCounts = []int{1, 8, 64}

// batchSize is how many digests a batch has.
const batchSize = 16

// message is what is signed.
const message = "holdfast benchmark message"

// figureKinds are the ends of the names of a contest's figures; added_ms is measured at one caller only.
var figureKinds = []string{"ratio", "raw_ops", "ops", "verified_ops", "verified_ratio", "p50_ms", "p99_ms", "added_ms"}

// wanted returns the numbers of callers at which one of the contest's figures is to be measured.
func (c contest) wanted(r *report) []int {
	var list []int
	for _, callers := range c.callers {
		if r.wants(fmt.Sprintf("%s.c%d", c.name, callers), figureKinds...) {
			list = append(list, callers)
		}
	}
	return list
}

// signing measures signatures on SoftHSM2 and a TPM.
func (l *lab) signing(ctx context.Context) error {
	if err := l.signToken(ctx); err != nil {
		return fmt.Errorf("SoftHSM2: %w", err)
	}
	if err := l.signTPM(ctx); err != nil {
		return fmt.Errorf("TPM: %w", err)
	}
	return nil
}

// wanted returns the contests of which something is to be measured, with no more callers than that needs.
func (l *lab) wanted(contests []contest) []contest {
	var list []contest
	for _, c := range contests {
		if c.callers = c.wanted(l.report); len(c.callers) > 0 {
			list = append(list, c)
		}
	}
	return list
}

func (l *lab) signToken(ctx context.Context) (err error) {
	var contests []contest
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.EdDSA, holdfast.RS256_2048} {
		contests = append(contests, contest{
			name: fmt.Sprintf("sign.%s.softhsm2", a), title: fmt.Sprintf("%s softhsm2", a), algorithm: a, callers: callerCounts,
		})
	}
	contests = append(contests, contest{
		name: fmt.Sprintf("signbatch%d.ES256.softhsm2", batchSize), title: fmt.Sprintf("ES256 softhsm2 batch of %d", batchSize),
		algorithm: holdfast.ES256, callers: []int{64}, batch: true,
	})
	contests = l.wanted(contests)
	if len(contests) == 0 {
		return nil
	}
	l.say("bringing up two daemon's tokens and one to use directly")
	var tokens [3]*softhsmtest.Token
	for i, name := range []string{"raw", "off", "on"} {
		// Each in a folder of its own: SoftHSM2 looks for changes that others made in the whole folder.
		if tokens[i], err = l.token(name); err != nil {
			return err
		}
	}
	direct, err := openRawToken(tokens[raw])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.close()) }()
	var daemons [3]*daemon.Daemon
	for _, side := range []int{off, on} {
		backend := daemon.Backend{Name: "hsm", Token: tokens[side], Unverified: side == off}
		d, _, err := l.start(ctx, fmt.Sprintf("daemon%d", side), backend)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop(ctx, d)) }()
		daemons[side] = d
	}
	for i := range contests {
		if err := l.fillToken(ctx, &contests[i], direct, daemons); err != nil {
			return err
		}
		if err := l.compete(ctx, contests[i]); err != nil {
			return err
		}
	}
	return nil
}

// fillToken makes the keys of a contest.
func (l *lab) fillToken(ctx context.Context, c *contest, direct *rawToken, daemons [3]*daemon.Daemon) (err error) {
	if c.sides[raw], err = direct.signer(c.algorithm, []byte(message)); err != nil {
		return err
	}
	for _, side := range []int{off, on} {
		key, err := newKey(ctx, daemons[side].Client, "hsm", c.name, c.algorithm)
		if err != nil {
			return err
		}
		c.sides[side] = signOperation(key)
		if c.batch {
			c.sides[side] = batchOperation(daemons[side].Client, c.name, c.algorithm)
		}
	}
	return nil
}

func (l *lab) signTPM(ctx context.Context) (err error) {
	contests := l.wanted([]contest{{name: "sign.ES256.swtpm", title: "ES256 swtpm", algorithm: holdfast.ES256, callers: callerCounts}})
	if len(contests) == 0 {
		return nil
	}
	c := contests[0]
	l.say("bringing up two daemon's TPMs and one to use directly")
	dir, err := l.sub("tpm")
	if err != nil {
		return err
	}
	for side := range c.sides {
		t, err := softhsmtest.StartTPM(ctx, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.Stop(context.WithoutCancel(ctx))) }()
		if side == raw {
			direct, err := openRawTPM(ctx, t)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, direct.close()) }()
			if c.sides[raw], err = direct.signer([]byte(message)); err != nil {
				return err
			}
			continue
		}
		d, _, err := l.start(ctx, fmt.Sprintf("tpmdaemon%d", side), daemon.Backend{Name: "tpm", TPM: t, Unverified: side == off})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop(ctx, d)) }()
		key, err := newKey(ctx, d.Client, "tpm", c.name, c.algorithm)
		if err != nil {
			return err
		}
		c.sides[side] = signOperation(key)
	}
	return l.compete(ctx, c)
}

// newKey makes a key in a daemon and checks one signature of it.
func newKey(ctx context.Context, c *client.Client, backend, name string, a holdfast.Algorithm) (holdfast.Key, error) {
	b, err := c.Backend(ctx, backend, nil)
	if err != nil {
		return nil, err
	}
	key, err := b.Generate(ctx, holdfast.KeySpec{Label: name, Algorithm: a})
	if err != nil {
		return nil, err
	}
	digest := a.Digest([]byte(message))
	signature, err := key.Sign(ctx, digest, nil)
	if err != nil {
		return nil, err
	}
	return key, holdfast.Verify(a, key.Public(), digest, signature)
}

func signOperation(key holdfast.Key) operation {
	digest := key.Algorithm().Digest([]byte(message))
	return operation{signatures: 1, do: func(ctx context.Context) error {
		_, err := key.Sign(ctx, digest, nil)
		return err
	}}
}

func batchOperation(c *client.Client, name string, a holdfast.Algorithm) operation {
	request := &holdfastpb.SignBatchRequest{Name: name}
	for range batchSize {
		request.Digests = append(request.Digests, a.Digest([]byte(message)))
	}
	return operation{signatures: batchSize, do: func(ctx context.Context) error {
		resp, err := c.SignBatch(ctx, request)
		if err != nil {
			return err
		}
		for _, r := range resp.GetResults() {
			if r.GetError() != nil {
				return fmt.Errorf("one of a batch: %s", r.GetError().GetMessage())
			}
		}
		if len(resp.GetResults()) != batchSize {
			return fmt.Errorf("%d digests gave %d results", batchSize, len(resp.GetResults()))
		}
		return nil
	}}
}

// compete measures a contest at each number of callers.
func (l *lab) compete(ctx context.Context, c contest) error {
	for _, callers := range c.callers {
		l.say("%s, callers: %d", c.title, callers)
		var rounds [3][]sample
		for range l.rounds {
			for side, op := range c.sides {
				s, err := op.measure(ctx, callers, l.window)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				rounds[side] = append(rounds[side], s)
			}
		}
		l.reportContest(c, callers, rounds)
	}
	return nil
}

// of returns the median over the rounds of something made of a round's samples.
func of(rounds [3][]sample, f func(s [3]sample) float64) float64 {
	values := make([]float64, len(rounds[raw]))
	for i := range values {
		values[i] = f([3]sample{rounds[raw][i], rounds[off][i], rounds[on][i]})
	}
	return median(values)
}

// reportContest adds two lines: signatures per second, and the median latency at one caller or the 99th percentile at more.
func (l *lab) reportContest(c contest, callers int, rounds [3][]sample) {
	name := fmt.Sprintf("%s.c%d.", c.name, callers)
	title := fmt.Sprintf("%s c%d", c.title, callers)
	l.reportRates(name, title, rounds)

	p50 := func(side int) float64 { return of(rounds, func(s [3]sample) float64 { return s[side].p50 }) }
	p99 := func(side int) float64 { return of(rounds, func(s [3]sample) float64 { return s[side].p99 }) }
	added := func(side int) float64 {
		return of(rounds, func(s [3]sample) float64 { return s[side].p50 - s[raw].p50 })
	}
	l.report.add(name+"p50_ms", p50(off), "ms", lower)
	verdict := l.report.add(name+"p99_ms", p99(off), "ms", lower)
	if callers > 1 {
		l.report.line(title, "p99 ms", number2(p99(raw)), number2(p99(off)), number2(p99(on)), "", "", verdict)
		return
	}
	verdict = l.report.add(name+"added_ms", added(off), "ms", lower)
	l.report.line(title, "p50 ms", number3(p50(raw)), number3(p50(off)), number3(p50(on)),
		signed(added(off)), signed(added(on)), verdict)
}

func (l *lab) reportRates(name, title string, rounds [3][]sample) {
	rate := func(side int) float64 { return of(rounds, func(s [3]sample) float64 { return s[side].rate }) }
	ratio := func(side int) float64 {
		return of(rounds, func(s [3]sample) float64 { return s[side].rate / s[raw].rate })
	}
	verdict := l.report.add(name+"ratio", ratio(off), "ratio", higher)
	l.report.add(name+"verified_ratio", ratio(on), "ratio", higher)
	l.report.add(name+"raw_ops", rate(raw), "1/s", higher)
	l.report.add(name+"ops", rate(off), "1/s", higher)
	l.report.add(name+"verified_ops", rate(on), "1/s", higher)
	l.report.line(title, "1/s", whole(rate(raw)), whole(rate(off)), whole(rate(on)),
		number2(ratio(off)), number2(ratio(on)), verdict)
}

func whole(v float64) string   { return fmt.Sprintf("%.0f", v) }
func number2(v float64) string { return fmt.Sprintf("%.2f", v) }
func number3(v float64) string { return fmt.Sprintf("%.3f", v) }
func signed(v float64) string  { return fmt.Sprintf("%+.3f", v) }
