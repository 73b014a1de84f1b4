//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// connection is a set of logged-in sessions on one token, each owned by a goroutine that takes jobs. It is never
// repaired: when the token goes away the connection ends, and the backend makes another.
type connection struct {
	mod   *module
	slot  uint
	epoch uint64 // of mod when the sessions were opened

	profile  *profile // what the token can do; set before start
	loggedIn bool     // the user logged in, and has to be so still; set before start

	jobs    chan *job
	ended   chan struct{} // closed by end
	endOnce sync.Once
	workers sync.WaitGroup

	objects   registry
	unwrapped *cache
	wrapping  wrappingKeys
}

// session is one PKCS#11 session. It is used by one goroutine at a time.
type session struct {
	c      *connection
	p11    *pkcs11.Ctx
	handle pkcs11.SessionHandle
	output [outputRoom]byte // where functions of direct write
}

// job is one operation on a session and the place where its outcome goes.
type job struct {
	watch
	op    func(*session) error
	done  chan error
	timer *time.Timer
}

// jobPool saves the three allocations of a job that nobody gave up on.
type jobPool struct{ sync.Pool }

// get returns a job whose timer does not run.
func (p *jobPool) get(op func(*session) error) *job {
	j, ok := p.Get().(*job)
	if !ok {
		j = &job{done: make(chan error, 1), timer: time.NewTimer(time.Hour)}
		j.timer.Stop()
	}
	j.over.Store(false)
	j.op = op
	return j
}

func (p *jobPool) put(j *job) {
	j.timer.Stop()
	j.op = nil
	p.Put(j)
}

// open opens n sessions on slot, fewer if the token has no more, at least one. It does not log in.
func open(mod *module, slot uint, epoch uint64, n, cacheSize int) (*connection, []*session, error) {
	c := &connection{mod: mod, slot: slot, epoch: epoch, jobs: make(chan *job), ended: make(chan struct{})}
	c.unwrapped = newCache(cacheSize)
	var sessions []*session
	for len(sessions) < n {
		s, err := c.openSession()
		if err != nil && len(sessions) > 0 && returned(err, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY) {
			break
		}
		if err != nil {
			closeAll(sessions)
			return nil, nil, err
		}
		sessions = append(sessions, s)
	}
	return c, sessions, nil
}

// openSession opens one session, for reading and writing where the token allows that.
func (c *connection) openSession() (*session, error) {
	h, err := c.mod.p11.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if returned(err, pkcs11.CKR_TOKEN_WRITE_PROTECTED) {
		h, err = c.mod.p11.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION)
	}
	if err != nil {
		return nil, fmt.Errorf("C_OpenSession: %w", err)
	}
	return &session{c: c, p11: c.mod.p11, handle: h}, nil
}

func closeAll(sessions []*session) {
	for _, s := range sessions {
		_ = s.p11.CloseSession(s.handle) // a session that cannot be closed is gone
	}
}

// start lets the sessions take jobs.
func (c *connection) start(sessions []*session) {
	for _, s := range sessions {
		c.workers.Go(func() { c.work(s) })
	}
}

func (c *connection) work(s *session) {
	for {
		select {
		case j := <-c.jobs:
			err := c.perform(s, j.op)
			if !j.end() {
				c.mod.stuck.Add(-1)
			}
			j.done <- err
		case <-c.ended:
			if c.mod.enter(c.epoch) {
				closeAll([]*session{s})
				c.mod.leave()
			}
			return
		}
	}
}

func (c *connection) perform(s *session, op func(*session) error) error {
	if !c.mod.enter(c.epoch) {
		return errExpired
	}
	defer c.mod.leave()
	return op(s)
}

// do has op run on a session and waits for it. ctx is honoured until a session takes the job; limit applies from then
// on, and when it is reached the connection ends. It returns errExpired when the connection ended before op began.
func (c *connection) do(ctx context.Context, pool *jobPool, limit time.Duration, op func(*session) error) error {
	j := pool.get(op)
	select {
	case c.jobs <- j:
	case <-ctx.Done():
		pool.put(j)
		return ctx.Err()
	case <-c.ended:
		pool.put(j)
		return errExpired
	}
	j.timer.Reset(limit)
	select {
	case err := <-j.done:
		pool.put(j)
		return err
	case <-j.timer.C:
		c.end()
		return c.mod.giveUp(&j.watch, j.done)
	}
}

// end lets the workers close their sessions once their jobs are done.
func (c *connection) end() { c.endOnce.Do(func() { close(c.ended) }) }

// wait ends the connection and waits for its sessions to be closed, up to limit.
func (c *connection) wait(limit time.Duration) error {
	c.end()
	done := make(chan struct{})
	go func() {
		c.workers.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return holdfast.Errorf(holdfast.ErrUnavailable, "close", "a call into the PKCS#11 module does not end")
	}
}
