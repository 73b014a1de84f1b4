package custody

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/internal/softkey"
)

func TestAbsentAtStart(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.stop(t)
	f.refuse(gone())
	now := time.Now()
	f.adjust = func(c *Config) {
		c.Now = func() time.Time { return now }
		c.Backends = append(c.Backends, BackendConfig{Name: "other", Kind: "softkey", Open: func(ctx context.Context) (holdfast.Backend, error) {
			return softkey.Open(ctx, softkey.Config{})
		}})
	}
	f.start(t)
	list := f.service.Backends(t.Context())
	if len(list) != 2 || list[0].Available || list[0].Reason == nil || list[0].Kind != "softkey" ||
		list[0].KeyCount != 1 || !list[1].Available {
		t.Fatalf("%+v", list)
	}
	if _, err := f.service.CreateKey(t.Context(), CreateKeyRequest{Name: "b", Backend: "other",
		Algorithm: holdfast.ES256, Purpose: PurposeAssertion}); err != nil {
		t.Errorf("the other backend: %v", err)
	}
	digest := make([]byte, 32)
	opens := f.opens.Load()
	_, err := f.service.Sign(t.Context(), "a", digest)
	wantCode(t, "sign", err, holdfast.ErrUnavailable)
	if n := f.opens.Load(); n != opens {
		t.Errorf("the device was opened %d times again at once", n-opens)
	}
	if _, err := f.service.Key(t.Context(), "a"); err != nil {
		t.Errorf("the record needs no device: %v", err)
	}
	now = now.Add(firstPause) // later, the next use tries again
	f.refuse(nil)
	if _, err := f.service.Sign(t.Context(), "a", digest); err != nil {
		t.Error(err)
	}
}

func TestPausesGrow(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.stop(t)
	f.refuse(gone())
	now := time.Now()
	f.adjust = func(c *Config) { c.Now = func() time.Time { return now } }
	f.start(t)
	opens := f.opens.Load()
	begin := now
	for ; now.Sub(begin) < 10*time.Minute; now = now.Add(time.Second) {
		_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
		wantCode(t, "sign", err, holdfast.ErrUnavailable)
	}
	// 1, 2, 4, … 32 s, then once a minute.
	if n := f.opens.Load() - opens; n < 10 || n > 16 {
		t.Errorf("opened %d times in ten minutes", n)
	}
	if st, err := f.service.ProbeBackend(t.Context(), "soft"); err != nil || st.Available || f.opens.Load()-opens > 17 {
		t.Errorf("%+v, %v", st, err)
	}
	f.refuse(nil)
	if st, err := f.service.ProbeBackend(t.Context(), "soft"); err != nil || !st.Available {
		t.Errorf("a probe did not open the backend: %+v, %v", st, err)
	}
}

func TestRefusedPINWaitsForAPerson(t *testing.T) {
	for _, code := range []holdfast.Code{holdfast.ErrAuth, holdfast.ErrLocked} {
		f := newFixture(t)
		f.create(t, "a", holdfast.ES256, holdfast.Resident)
		f.stop(t)
		f.refuse(&holdfast.Error{Op: "login", Code: code, Retries: 2})
		now := time.Now()
		f.adjust = func(c *Config) {
			c.Now = func() time.Time { return now }
			c.Backends[0].PIN = func(context.Context) (holdfast.Secret, error) { return holdfast.Secret{}, errors.New("no such file") }
		}
		f.start(t)
		opens := f.opens.Load()
		now = now.Add(24 * time.Hour)
		_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
		wantCode(t, "sign", err, code)
		if e, ok := errors.AsType[*holdfast.Error](err); !ok || e.Retries != 2 {
			t.Errorf("tries left: %+v", err)
		}
		if st, err := f.service.ProbeBackend(t.Context(), "soft"); err != nil || st.Available {
			t.Errorf("%+v, %v", st, err)
		}
		if n := f.opens.Load(); n != opens {
			t.Errorf("the device was given a PIN %d times without a person", n-opens)
		}
		f.refuse(nil)
		if err := f.service.UnlockBackend(t.Context(), "soft", holdfast.Secret{}); err == nil ||
			f.opens.Load() != opens+1 {
			t.Errorf("unlocking without a PIN: %v", err)
		}
		err = f.service.UnlockBackend(t.Context(), "soft", holdfast.NewSecret([]byte("1234")))
		if err != nil && !errors.Is(err, holdfast.ErrAuth) {
			t.Error(err)
		}
		if _, err := f.service.Sign(t.Context(), "a", make([]byte, 32)); err != nil {
			t.Error(err)
		}
		f.stop(t)
	}
}

func TestUnlockWhatHasNoPIN(t *testing.T) {
	f := newFixture(t)
	err := f.service.UnlockBackend(t.Context(), "hard", holdfast.Secret{})
	wantCode(t, "unknown backend", err, holdfast.ErrNotFound)
	err = f.service.UnlockBackend(t.Context(), "soft", holdfast.Secret{})
	wantCode(t, "no PIN given or configured", err, holdfast.ErrInvalid)
}

func TestAwayAndBack(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.fail("", gone())
	_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
	wantCode(t, "sign", err, holdfast.ErrUnavailable)
	if st := f.service.Backends(t.Context())[0]; st.Available || !errors.Is(st.Reason, holdfast.ErrUnavailable) ||
		st.Capabilities == nil {
		t.Errorf("%+v", st)
	}
	if st, err := f.service.ProbeBackend(t.Context(), "soft"); err != nil || st.Available {
		t.Errorf("%+v, %v", st, err)
	}
	f.fail("", nil)
	if _, err := f.service.Sign(t.Context(), "a", make([]byte, 32)); err != nil {
		t.Error(err)
	}
	if st := f.service.Backends(t.Context())[0]; !st.Available || st.Reason != nil || st.PIN == nil {
		t.Errorf("%+v", st)
	}
	if n := f.logs.FilterMessage("backend away").Len() + f.logs.FilterMessage("backend back").Len(); n != 2 {
		t.Errorf("%d log lines about one absence", n)
	}
}

func TestPulledDuringCreation(t *testing.T) {
	f := newFixture(t)
	f.fail("", gone())
	_, err := f.service.CreateKey(t.Context(), request("a", holdfast.ES256, holdfast.Resident))
	wantCode(t, "create", err, holdfast.ErrUnavailable)
	_, err = f.service.CreateKey(t.Context(), request("a", holdfast.ES256, holdfast.Resident))
	wantCode(t, "the name waits for the clean-up", err, holdfast.ErrExists)
	if st := f.service.Backends(t.Context())[0]; !slices.ContainsFunc(st.Concerns, func(c string) bool { return strings.Contains(c, "interrupted") }) {
		t.Errorf("no concern: %q", st.Concerns)
	}
	f.fail("", nil)
	if st, err := f.service.ProbeBackend(t.Context(), "soft"); err != nil || !st.Available {
		t.Fatalf("%+v, %v", st, err)
	}
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	if refs := f.refs(t); len(refs) != 1 {
		t.Errorf("on the device: %v", refs)
	}
}

func TestPulledDuringDestruction(t *testing.T) {
	f := newFixture(t)
	k := f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.fail("destroy", gone())
	wantCode(t, "destroy", f.service.DestroyKey(t.Context(), "a"), holdfast.ErrUnavailable)
	for range 2 {
		_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
		wantCode(t, "sign", err, holdfast.ErrState)
		if got, err := f.service.Key(t.Context(), "a"); err != nil || !got.Destroying {
			t.Errorf("%+v, %v", got, err)
		}
		f.restart(t) // the mark survives, while the device still does not obey
	}
	wantCode(t, "destroy again", f.service.DestroyKey(t.Context(), "a"), holdfast.ErrUnavailable)
	f.fail("destroy", nil)
	if err := f.service.DestroyKey(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if _, err := f.store.Tombstone(t.Context(), k.ID); err != nil || len(f.refs(t)) != 0 {
		t.Errorf("%v, on the device: %v", err, f.refs(t))
	}
}

func TestDestructionIsFinishedWhenTheDeviceIsBack(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.create(t, "b", holdfast.ES256, holdfast.Resident)
	f.fail("", gone())
	wantCode(t, "destroy", f.service.DestroyKey(t.Context(), "a"), holdfast.ErrUnavailable)
	f.fail("", nil)
	if _, err := f.service.Sign(t.Context(), "b", make([]byte, 32)); err != nil { // shows that the device is back
		t.Fatal(err)
	}
	f.service.working.Wait()
	_, err := f.service.Key(t.Context(), "a")
	wantCode(t, "the destroyed key", err, holdfast.ErrNotFound)
	if refs := f.refs(t); len(refs) != 1 {
		t.Errorf("on the device: %v", refs)
	}
}

func TestRefusedDestructionLeavesTheKeyWhole(t *testing.T) {
	f := newFixture(t)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
	f.fail("destroy", holdfast.Errorf(holdfast.ErrUnsupported, "", "this key cannot be destroyed"))
	wantCode(t, "destroy", f.service.DestroyKey(t.Context(), "a"), holdfast.ErrUnsupported)
	if _, err := f.service.Sign(t.Context(), "a", make([]byte, 32)); err != nil {
		t.Error(err)
	}
	if intents, err := f.store.Intents(t.Context(), "soft"); err != nil || len(intents) != 0 {
		t.Error(intents, err)
	}
}

func TestFullDevice(t *testing.T) {
	f := newFixture(t)
	f.fail("generate", holdfast.Errorf(holdfast.ErrBusy, "", "the device is full"))
	_, err := f.service.CreateKey(t.Context(), request("a", holdfast.ES256, holdfast.Resident))
	wantCode(t, "create", err, holdfast.ErrBusy)
	f.fail("generate", nil)
	f.create(t, "a", holdfast.ES256, holdfast.Resident)
}

func TestKeyGoneFromTheDevice(t *testing.T) {
	f := newFixture(t)
	k := f.create(t, "a", holdfast.ES256, holdfast.Resident)
	if err := f.service.backends["soft"].device.Load().destroyer.Destroy(t.Context(), k.Ref); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
		wantCode(t, "sign", err, holdfast.ErrNotFound)
		if !strings.Contains(err.Error(), "not on the device") {
			t.Error(err)
		}
		if st := f.service.Backends(t.Context())[0]; !slices.ContainsFunc(st.Concerns, func(c string) bool { return strings.Contains(c, "not found") }) {
			t.Errorf("no concern: %q", st.Concerns)
		}
		f.restart(t)
	}
	if err := f.service.DestroyKey(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func TestInspection(t *testing.T) {
	f := newFixture(t)
	d := f.service.backends["soft"].device.Load()
	f.create(t, "fine", holdfast.ES256, holdfast.Resident)
	f.create(t, "wrapped", holdfast.ES256, holdfast.Wrapped)
	missing := f.create(t, "missing", holdfast.ES256, holdfast.Resident)
	foreign, err := d.Generate(t.Context(), holdfast.KeySpec{Label: "foreign", Algorithm: holdfast.ES256})
	if err := errors.Join(err, d.destroyer.Destroy(t.Context(), missing.Ref)); err != nil {
		t.Fatal(err)
	}
	i, err := f.service.InspectBackend(t.Context(), "soft")
	if err != nil || len(i.Missing) != 1 || i.Missing[0].Name != "missing" ||
		!slices.Equal(i.Foreign, []holdfast.Ref{foreign.Ref()}) ||
		len(i.Changed)+len(i.Undead)+len(i.Unusable)+len(i.Pending) != 0 {
		t.Fatalf("%+v, %v", i, err)
	}
	if st := f.service.Backends(t.Context())[0]; !slices.ContainsFunc(st.Concerns, func(c string) bool { return strings.Contains(c, `"missing"`) }) {
		t.Errorf("no concern: %q", st.Concerns)
	}
}

func TestInspectionOfARestoredAndAnEditedDevice(t *testing.T) {
	f := newFixture(t)
	device := f.dir + "/device.json"
	f.create(t, "undead", holdfast.ES256, holdfast.Resident)
	f.create(t, "changed", holdfast.ES256, holdfast.Resident)
	copied := readFile(t, device)
	if err := f.service.DestroyKey(t.Context(), "undead"); err != nil {
		t.Fatal(err)
	}
	f.stop(t)
	// Another key under the reference of one of ours, and the destroyed one back from a copy of the device.
	changed := f.reopenRecord(t, "changed")
	swapped := swapKey(t, copied, changed.Ref)
	writeFile(t, device, swapped)
	f.start(t)
	i, err := f.service.InspectBackend(t.Context(), "soft")
	if err != nil || len(i.Undead) != 1 || i.Undead[0].Name != "undead" || len(i.Changed) != 1 ||
		i.Changed[0].Name != "changed" || len(i.Missing)+len(i.Foreign) != 0 {
		t.Fatalf("%+v, %v", i, err)
	}
	_, err = f.service.Sign(t.Context(), "changed", make([]byte, 32))
	wantCode(t, "signing with a swapped key", err, holdfast.ErrIntegrity)
}

func TestEditedBlob(t *testing.T) {
	f := newFixture(t)
	k := f.create(t, "a", holdfast.ES256, holdfast.Wrapped)
	f.stop(t)
	f.editBlob(t, k.ID)
	f.start(t)
	_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
	wantCode(t, "sign", err, holdfast.ErrIntegrity)
}

// liar is a backend whose keys return signatures with one bit changed.
type liar struct{ holdfast.Backend }

func (l liar) Unwrap() holdfast.Backend { return l.Backend }

func (l liar) Key(ctx context.Context, ref holdfast.Ref) (holdfast.Key, error) {
	k, err := l.Backend.Key(ctx, ref)
	return lyingKey{k}, err
}

type lyingKey struct{ holdfast.Key }

func (k lyingKey) Unwrap() holdfast.Key { return k.Key }

func (k lyingKey) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := k.Key.Sign(ctx, digest, opts)
	if err == nil {
		signature[len(signature)-1] ^= 1
	}
	return signature, err
}

func TestWrongSignatureIsNotReleased(t *testing.T) {
	f := newFixture(t)
	for _, a := range holdfast.Algorithms() {
		if a.Use() == holdfast.UseSign && a.Bits() < 3000 {
			f.create(t, string(a), a, holdfast.Resident)
		}
	}
	for _, verify := range []bool{true, false} {
		f.stop(t)
		f.adjust = func(c *Config) {
			open := c.Backends[0].Open
			c.Backends[0].VerifyAfterSign = verify
			c.Backends[0].Open = func(ctx context.Context) (holdfast.Backend, error) {
				b, err := open(ctx)
				return liar{b}, err
			}
		}
		f.start(t)
		keys, _, err := f.service.Keys(t.Context(), ListOptions{})
		if err != nil || len(keys) == 0 {
			t.Fatal(len(keys), err)
		}
		for _, k := range keys {
			signature, err := f.service.Sign(t.Context(), k.Name, k.Algorithm.Digest([]byte("x")))
			if !verify {
				if err != nil {
					t.Error(err)
				}
				continue
			}
			wantCode(t, k.Name, err, holdfast.ErrIntegrity)
			if signature != nil {
				t.Errorf("%s: a wrong signature was released", k.Name)
			}
		}
		n := f.logs.FilterMessage("signature does not verify and was not released").Len()
		if verify && n != len(keys) || !verify && n != 0 {
			t.Errorf("verify %v: %d log lines", verify, n)
		}
	}
}

func TestDestroyWaitsForUses(t *testing.T) {
	for _, r := range []holdfast.Residence{holdfast.Resident, holdfast.Wrapped} {
		f := newFixture(t)
		f.create(t, "a", holdfast.ES256, r)
		entered, proceed := make(chan struct{}), make(chan struct{})
		fault := func(op string) error {
			if op == "sign" {
				close(entered)
				<-proceed
			}
			return nil
		}
		f.faults.Store(&fault)
		var wg sync.WaitGroup
		var signErr, destroyErr error
		wg.Go(func() { _, signErr = f.service.Sign(t.Context(), "a", make([]byte, 32)) })
		<-entered
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.service.DestroyKey(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		e := f.service.cache.get("a")
		waiting, giveUp := context.WithCancel(t.Context())
		giveUp()
		if _, err := f.service.stop(waiting, e); !errors.Is(err, context.Canceled) || e.destroying.Load() {
			t.Errorf("%v: the key is not usable again after the waiting was given up", err)
		}
		wg.Go(func() { destroyErr = f.service.DestroyKey(t.Context(), "a") })
		for !e.destroying.Load() { // until the destruction has begun
			runtime.Gosched()
		}
		_, err := f.service.Sign(t.Context(), "a", make([]byte, 32))
		wantCode(t, "signing with a key that is being destroyed", err, holdfast.ErrState)
		close(proceed)
		wg.Wait()
		if signErr != nil || destroyErr != nil {
			t.Errorf("sign: %v, destroy: %v", signErr, destroyErr)
		}
	}
}

func TestHungDeviceDoesNotHideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := newFixture(t)
		f.stop(t)
		f.adjust = func(c *Config) {
			c.Backends = append(c.Backends, BackendConfig{Name: "hung", Kind: "pkcs11", Open: func(context.Context) (holdfast.Backend, error) {
				<-release
				return nil, gone()
			}})
		}
		f.start(t)
		list := f.service.Backends(t.Context())
		if len(list) != 2 || !list[0].Available || list[1].Available ||
			!strings.Contains(fmt.Sprint(list[1].Reason), "still being opened") {
			t.Errorf("%+v", list)
		}
		close(release)
		f.stop(t)
	})
}
