package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"slices"

	"holdfast"
	"holdfast/api/client"
	"holdfast/api/holdfastpb"
	"holdfast/softhsm-test/cmd/internal/daemon"
)

// checkRecords asks a daemon that was started after a kill for every name, and uses every key that there should be.
func (a *arena) checkRecords(ctx context.Context, d *daemon.Daemon) error {
	for _, c := range a.callers {
		if err := c.connect(ctx, d.Client); err != nil {
			return err
		}
		for _, k := range c.keys {
			if err := a.checkKey(ctx, d.Client, c, k); err != nil {
				return fmt.Errorf("%s (%s %s %s): %w", k.name, k.backend, k.residence, k.algorithm, err)
			}
		}
	}
	a.count()
	return a.inspect(ctx, d.Client)
}

// checkKey checks one name: an acknowledged act is done, an interrupted one is done or not begun.
func (a *arena) checkKey(ctx context.Context, daemon *client.Client, c *caller, k *key) error {
	before := k.state
	found, err := daemon.GetKey(ctx, &holdfastpb.GetKeyRequest{Name: k.name})
	switch {
	case errors.Is(err, holdfast.ErrNotFound):
		if before == present {
			return errors.New("its creation was acknowledged, and it is not there")
		}
		if before == absent {
			return nil
		}
		a.tally.undone(before)
		k.state = absent
		if err := c.create(ctx, k); err != nil {
			return fmt.Errorf("its name cannot be used again: %w", err)
		}
		return c.use(ctx, k)
	case err != nil:
		return err
	case before == absent:
		return errors.New("its destruction was acknowledged or it was never made, and it is there")
	}
	handle, err := c.backends[k.backend].Key(ctx, holdfast.Ref(found.GetRef()))
	if err != nil {
		return fmt.Errorf("find by ref: %w", err)
	}
	if before != creating && (handle.Ref() != k.ref || !samePublic(handle.Public(), k.public)) {
		return errors.New("it is another key than the one that was acknowledged")
	}
	if before != present {
		a.tally.kept(before)
	}
	k.state, k.handle, k.ref, k.public = present, handle, handle.Ref(), handle.Public()
	return c.use(ctx, k)
}

func samePublic(x, y crypto.PublicKey) bool {
	if x == nil || y == nil {
		return x == nil && y == nil
	}
	e, ok := x.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(y)
}

// inspect lets the daemon compare its devices with its records.
func (a *arena) inspect(ctx context.Context, daemon *client.Client) error {
	for _, b := range a.cfg.Backends {
		found, err := daemon.InspectBackend(ctx, &holdfastpb.InspectBackendRequest{Name: b.Name})
		if err != nil {
			return fmt.Errorf("inspect %s: %w", b.Name, err)
		}
		for what, list := range map[string][]string{
			"missing": found.GetMissing(), "changed": found.GetChanged(), "undead": found.GetUndead(),
			"foreign": found.GetForeign(), "unusable": found.GetUnusable(), "pending": found.GetPending(),
		} {
			if len(list) > 0 {
				return fmt.Errorf("the daemon says of %s: %s: %v", b.Name, what, list)
			}
		}
	}
	return nil
}

// records lists what the daemon holds: for each backend, the resident keys under what identifies them on the device, with
// the parts they consist of. It returns an error unless these and the wrapped ones are the keys that the callers know.
func (a *arena) records(ctx context.Context, daemon *client.Client) (map[string]rawKeys, error) {
	known := map[string]bool{}
	for _, c := range a.callers {
		for _, k := range c.keys {
			if k.state == present {
				known[k.name] = true
			}
		}
	}
	recorded := map[string]rawKeys{}
	for _, b := range a.cfg.Backends {
		recorded[b.Name] = rawKeys{}
	}
	request := &holdfastpb.ListKeysRequest{PageSize: 1000} // more than there are
	page, err := daemon.ListKeys(ctx, request)
	if err != nil {
		return nil, err
	}
	for _, k := range page.GetKeys() {
		if !known[k.GetName()] {
			return nil, fmt.Errorf("there is a record of %q, which nobody was told of", k.GetName())
		}
		delete(known, k.GetName())
		if k.GetResidence() != holdfastpb.Residence_RESIDENCE_RESIDENT {
			continue
		}
		id, parts, err := onDevice(k)
		if err != nil {
			return nil, err
		}
		recorded[k.GetBackend()][id] = parts
	}
	if len(known) > 0 {
		return nil, fmt.Errorf("not in the list of keys: %v", slices.Sorted(maps.Keys(known)))
	}
	return recorded, nil
}

// onDevice returns what a resident key is known by on its device, and its parts.
func onDevice(k *holdfastpb.Key) (id string, parts []string, err error) {
	switch k.GetBackend() {
	case onToken:
		id, err = tokenIDOf(k.GetRef(), k.GetName())
		return id, tokenParts(holdfast.Algorithm(k.GetAlgorithm())), err
	case onTPM:
		id, err = handleOf(k.GetRef())
		return id, []string{wholeKey}, err
	default:
		id, err = slotOf(k.GetRef())
		return id, []string{certificateOf(k.GetName()), wholeKey}, err
	}
}

// checkStopped compares what is on the devices with the records, both ways, and checks the database. What the daemon put
// on the devices for itself stays there.
func (a *arena) checkStopped(ctx context.Context, recorded map[string]rawKeys) error {
	found, err := a.devices.raw(ctx)
	if err != nil {
		return err
	}
	if a.own == nil { // there are no other keys yet
		a.own = found
	}
	for id, parts := range found[onToken] {
		if isOwn(id) {
			a.own[onToken][id] = parts
		}
	}
	for backend, keys := range found {
		want := maps.Clone(recorded[backend])
		maps.Copy(want, a.own[backend])
		if err := compare(backend, keys, want); err != nil {
			return err
		}
	}
	unfinished, err := checkDatabase(ctx, a.cfg.Dir)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if unfinished > 0 {
		return fmt.Errorf("database: %d acts are unfinished", unfinished)
	}
	a.tally.emptyFiles, err = emptyObjects(a.devices.token)
	return err
}

// compare returns an error unless found, what is on a backend's device, is want.
func compare(backend string, found, want rawKeys) error {
	for id, parts := range want {
		if !slices.Equal(found[id], parts) {
			return fmt.Errorf("%s: the key %s should be there as %q and is as %q", backend, id, parts, found[id])
		}
	}
	for id, parts := range found {
		if want[id] == nil {
			return fmt.Errorf("%s: there is %q of the key %s, which is in no record", backend, parts, id)
		}
	}
	return nil
}

// countLeft counts what a killed daemon left half done, before another one looks.
func (a *arena) countLeft(ctx context.Context) error {
	unfinished, err := checkDatabase(ctx, a.cfg.Dir)
	if err != nil {
		return fmt.Errorf("database after the kill: %w", err)
	}
	a.tally.left += unfinished
	return nil
}
