package custody

import (
	"context"
	"errors"

	"holdfast"
	"holdfast/custody/store"

	"go.uber.org/zap"
)

// finish finishes the acts on a device that were interrupted: a key whose creation was never acknowledged is destroyed,
// a destruction that was begun is completed. What cannot be finished now waits for the next time.
func (b *backend) finish(ctx context.Context, d *device) {
	b.cleaning.Lock()
	defer b.cleaning.Unlock()
	b.unfinished.Store(false)
	intents, err := b.s.cfg.Store.Intents(ctx, b.cfg.Name)
	if err != nil {
		b.unfinished.Store(true)
		b.s.log.Error("intents not read", zap.String("backend", b.cfg.Name), zap.Error(err))
	}
	for _, i := range intents {
		if err := b.finishOne(ctx, d, i); err != nil {
			b.unfinished.Store(true)
			b.s.log.Error("interrupted act not finished", zap.String("op", string(i.Act)),
				zap.String("key_ref", string(i.Ref)),
				zap.String("backend", b.cfg.Name), codeField(err), zap.Error(err))
		}
	}
}

// finishOne finishes one act, unless the act is in progress.
func (b *backend) finishOne(ctx context.Context, d *device, i store.Intent) error {
	if !b.s.claims.take(i.Name) {
		b.unfinished.Store(true) // whoever has the name may be about to fail because of this very intent
		return nil
	}
	defer b.s.claims.drop(i.Name)
	there, err := b.s.cfg.Store.HasIntent(ctx, i.ID)
	if err != nil || !there { // whoever held the name has finished it
		return err
	}
	if d.destroyer == nil {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "the backend cannot destroy keys; look for %s by hand",
			i.Ref)
	}
	if err := d.destroyer.Destroy(ctx, i.Ref); err != nil && !errors.Is(err, holdfast.ErrNotFound) {
		return err
	}
	if i.Act == store.ActDestroy {
		err = b.s.cfg.Store.FinishDestroy(ctx, i.ID, b.s.cfg.Now())
		b.s.cache.forget(i.Name)
	} else {
		err = b.s.cfg.Store.DropIntent(ctx, i.ID)
	}
	if err == nil {
		b.s.log.Warn("interrupted act finished", zap.String("op", string(i.Act)), zap.String("key_ref", string(i.Ref)),
			zap.String("backend", b.cfg.Name))
	}
	return err
}

// finishLater finishes interrupted acts, if there are any, while the caller goes on.
func (b *backend) finishLater() {
	d := b.device.Load()
	if d == nil || !b.unfinished.Load() || !b.s.calls.enter() {
		return
	}
	b.s.working.Go(func() {
		defer b.s.calls.leave()
		b.finish(b.s.life, d)
	})
}
