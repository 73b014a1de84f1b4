//go:build cgo && !nopiv

package token

import (
	"context"
	"fmt"

	"holdfast"

	"github.com/go-piv/piv-go/v2/piv"
)

// factoryTries is how many PIN tries cards have unless somebody changed it.
const factoryTries = 3

// unlockHint is what a person does to act on a refused PIN.
const unlockHint = "run `holdfast backend unlock NAME`"

// device is the card's name in the PIN memory.
func (b *Backend) device() string { return fmt.Sprintf("piv:serial=%d", b.serial) }

// login gives the card the PIN, once, if that cannot do harm. It is what the daemon does on its own; a person uses
// Unlock.
func (b *Backend) login(ctx context.Context, s *session) error {
	state, err := b.loadPIN(ctx)
	if err != nil {
		return err
	}
	left, err := s.retries()
	if err != nil {
		return err
	}
	full := s.pin.total
	if full < 0 {
		full = factoryTries
	}
	switch {
	case state == holdfast.PINRefused:
		return locked(left, "a PIN was refused; "+unlockHint)
	case left == 0:
		return blocked()
	case left == 1:
		return locked(left, "one more wrong PIN would block the card, so only a person may try: "+unlockHint)
	case state == holdfast.PINTrying && left >= 0 && left < full:
		return locked(left, "the outcome of the last PIN is not known and the card has counted a wrong one; "+unlockHint)
	}
	pin, err := b.pin(ctx)
	if err != nil {
		return err
	}
	return b.verify(ctx, s, pin)
}

func locked(left int, text string) error {
	e := holdfast.Errorf(holdfast.ErrLocked, "", "%s", text)
	e.Retries = left
	return e
}

func blocked() error {
	return locked(0, "the card's PIN is blocked: set a new one with the PUK (ykman piv access unblock-pin), then "+unlockHint)
}

// loadPIN returns what is known of the last PIN.
func (b *Backend) loadPIN(ctx context.Context) (holdfast.PINState, error) {
	if b.lastPIN == holdfast.PINRefused || b.cfg.PINMemory == nil {
		return b.lastPIN, nil
	}
	state, err := b.cfg.PINMemory.LoadPIN(ctx, b.device())
	if err != nil {
		return 0, fmt.Errorf("PIN memory: %w", err)
	}
	return state, nil
}

// storePIN records the outcome even when ctx ended while the card worked.
func (b *Backend) storePIN(ctx context.Context, state holdfast.PINState) error {
	b.lastPIN = state
	if b.cfg.PINMemory == nil {
		return nil
	}
	if err := b.cfg.PINMemory.StorePIN(context.WithoutCancel(ctx), b.device(), state); err != nil {
		return fmt.Errorf("PIN memory: %w", err)
	}
	return nil
}

// pin returns the PIN a person gave, or else the configured one.
func (b *Backend) pin(ctx context.Context) (holdfast.Secret, error) {
	if b.person.Len() > 0 {
		return b.person, nil
	}
	if b.cfg.PIN == nil {
		return holdfast.Secret{}, locked(holdfast.RetriesUnknown, "the card wants its PIN and none is configured; "+unlockHint)
	}
	return b.cfg.PIN(ctx)
}

// checkPIN refuses what could never be a PIN, before the card counts it as a try.
func checkPIN(pin holdfast.Secret) error {
	if n := pin.Len(); n < 1 || n > 8 {
		return holdfast.Errorf(holdfast.ErrInvalid, "",
			"a PIV PIN has 6 to 8 digits, not %d characters; the card was not asked", n)
	}
	return nil
}

// verify gives pin to the card and records the outcome. piv-go takes a string, so a copy of the PIN stays in memory
// until it is collected.
func (b *Backend) verify(ctx context.Context, s *session, pin holdfast.Secret) error {
	if err := checkPIN(pin); err != nil {
		return err
	}
	if err := b.storePIN(ctx, holdfast.PINTrying); err != nil {
		return err
	}
	s.committed = true
	err := s.yk.VerifyPIN(string(pin.Bytes()))
	if gone(err) {
		return err // the outcome is unknown, and the memory says so
	}
	if err != nil {
		s.verified = false
		if storeErr := b.storePIN(ctx, holdfast.PINRefused); storeErr != nil {
			return storeErr
		}
		return pinRefused(err)
	}
	s.verified = true
	return b.storePIN(ctx, holdfast.PINAccepted)
}

func pinRefused(err error) error {
	translated := translate("", "", err)
	if e, ok := translated.(*holdfast.Error); ok && e.Code != holdfast.ErrLocked {
		e.Code = holdfast.ErrAuth
		e.Err = fmt.Errorf("the card refused the PIN: correct it, then %s: %w", unlockHint, err)
		return e
	}
	return blocked()
}

// Unlock gives the card a PIN on behalf of a person, also when only one try is left. An accepted PIN is used from then
// on, until Close, instead of the configured one.
func (b *Backend) Unlock(ctx context.Context, pin holdfast.Secret) error {
	if err := checkPIN(pin); err != nil {
		return translate("unlock", "", err)
	}
	return b.do(ctx, "unlock", "", func(s *session) error {
		left, err := s.retries()
		if err != nil {
			return err
		}
		if left == 0 {
			return blocked()
		}
		if err := b.verify(ctx, s, pin); err != nil {
			return err
		}
		b.person.Wipe()
		b.person = holdfast.NewSecret(append([]byte(nil), pin.Bytes()...))
		return nil
	})
}

// PINStatus returns the tries left without trying a PIN. A card that holds a verified PIN is reset for it.
func (b *Backend) PINStatus(ctx context.Context) (holdfast.PINStatus, error) {
	status := holdfast.PINStatus{Retries: holdfast.RetriesUnknown}
	err := b.do(ctx, "PIN status", "", func(s *session) error {
		state, err := b.loadPIN(ctx)
		if err != nil {
			return err
		}
		if s.verified {
			b.disconnect()
			if s, err = b.connect(); err != nil {
				return err
			}
			b.session = s
		}
		status.Refused = state == holdfast.PINRefused
		status.Retries, err = s.retries()
		return err
	})
	switch status.Retries {
	case 0:
		status.Note = "the PIN is blocked: set a new one with the PUK"
	case 1:
		status.Note = "last try: one more wrong PIN blocks the card"
	}
	return status, err
}

// authorize makes sure that the card will let the key in a slot work, as far as that is a matter of the PIN. It reports
// whether the PIN was given just now.
func (b *Backend) authorize(ctx context.Context, s *session, policy piv.PINPolicy) (given bool, err error) {
	switch policy {
	case piv.PINPolicyNever, piv.PINPolicyMatchOnce, piv.PINPolicyMatchAlways: // piv-go sees to the fingerprint
		return false, nil
	case piv.PINPolicyOnce:
		if s.verified {
			return false, nil
		}
	}
	return true, b.login(ctx, s)
}
