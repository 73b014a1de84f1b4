//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// pins gives PINs to one token, each at most once until a person acts.
type pins struct {
	device  string // names the token in memory
	memory  holdfast.PINMemory
	source  func(context.Context) (holdfast.Secret, error)
	refused atomic.Bool // also set when memory cannot be written

	mu       sync.Mutex
	unlocked *holdfast.Secret // what a person unlocked the token with, instead of source; guarded by mu
}

// memory is the PINMemory of a backend that was given none.
type memory struct {
	mu     sync.Mutex
	states map[string]holdfast.PINState // guarded by mu
}

func (m *memory) LoadPIN(_ context.Context, device string) (holdfast.PINState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[device], nil
}

func (m *memory) StorePIN(_ context.Context, device string, state holdfast.PINState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[device] = state
	return nil
}

func newPINs(cfg *Config, token pkcs11.TokenInfo) *pins {
	p := &pins{
		device: string(uri{"token": trim(token.Label), "serial": trim(token.SerialNumber)}.ref()),
		memory: cfg.PINMemory, source: cfg.PIN,
	}
	if p.memory == nil {
		p.memory = &memory{states: map[string]holdfast.PINState{}}
	}
	return p
}

// get returns the PIN to log in with.
func (p *pins) get(ctx context.Context) (holdfast.Secret, error) {
	p.mu.Lock()
	unlocked := p.unlocked
	p.mu.Unlock()
	if unlocked != nil {
		return *unlocked, nil
	}
	if p.source == nil {
		return holdfast.Secret{}, holdfast.Errorf(holdfast.ErrAuth, "",
			"the token wants a PIN and none is configured: set where the PIN comes from")
	}
	return p.source(ctx)
}

func (p *pins) keep(pin holdfast.Secret) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlocked = &pin
}

// allowed returns ErrLocked when no PIN may be given to the token: after a refusal, and where a PIN was given whose
// outcome nobody knows and the token shows signs of a wrong one.
func (p *pins) allowed(ctx context.Context, flags uint) error {
	state, err := p.memory.LoadPIN(ctx, p.device)
	if err != nil {
		return fmt.Errorf("load what became of the last PIN: %w", err)
	}
	if flags&pkcs11.CKF_USER_PIN_LOCKED != 0 {
		return locked(0, "the token has locked its PIN: its security officer has to set a new one")
	}
	const wrongBefore = pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY
	if p.refused.Load() || state == holdfast.PINRefused || state == holdfast.PINTrying && flags&wrongBefore != 0 {
		return locked(triesLeft(flags), "a PIN was refused; correct it and run `holdfast backend unlock NAME`")
	}
	return nil
}

func locked(retries int, text string) error {
	e := holdfast.Errorf(holdfast.ErrLocked, "", "%s", text)
	e.Retries = retries
	return e
}

// triesLeft is what CK_TOKEN_INFO.flags tell of the PIN's tries.
func triesLeft(flags uint) int {
	switch {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return 0
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return 1
	}
	return holdfast.RetriesUnknown
}

// try calls login, which gives the token a PIN, and remembers the outcome before and after. An outcome that says nothing
// of the PIN (the token went away) is left open.
func (p *pins) try(ctx context.Context, login func() error) error {
	ctx = context.WithoutCancel(ctx) // once the token has the PIN its answer has to be written down
	if err := p.memory.StorePIN(ctx, p.device, holdfast.PINTrying); err != nil {
		return fmt.Errorf("remember that a PIN is tried: %w", err)
	}
	err := login()
	switch {
	case err == nil || returned(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		p.refused.Store(false)
		return p.memory.StorePIN(ctx, p.device, holdfast.PINAccepted)
	case returned(err, refusedValues[:]...):
		p.refused.Store(true)
		return errors.Join(err, p.memory.StorePIN(ctx, p.device, holdfast.PINRefused))
	}
	return err
}

// refusal is the error for a PIN that the token refused with err.
func refusal(err error, flags uint) error {
	code, tries := holdfast.ErrAuth, triesLeft(flags)
	if tries == 0 || returned(err, pkcs11.CKR_PIN_LOCKED) {
		code, tries = holdfast.ErrLocked, 0
	}
	e := holdfast.Errorf(code, "",
		"the token refused the PIN (%w), and no PIN is tried again until a person runs `holdfast backend unlock NAME`", err)
	e.Retries = tries
	return e
}

// logIn logs the user in. pin overrides what is configured.
func (b *Backend) logIn(ctx context.Context, s *session, at place, pin *holdfast.Secret) error {
	flags := at.token.Flags
	if flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	if pin == nil {
		if err := b.pins.allowed(ctx, flags); err != nil {
			return err
		}
	} else if flags&pkcs11.CKF_USER_PIN_LOCKED != 0 {
		return locked(0, "the token has locked its PIN: its security officer has to set a new one")
	}
	secret, err := b.loginSecret(ctx, flags, pin)
	if err != nil {
		return err
	}
	err = b.pins.try(ctx, func() error {
		return b.mod.call(b.cfg.CallTimeout, func() error {
			if err := s.login(pkcs11.CKU_USER, secret); err != nil {
				return fmt.Errorf("C_Login: %w", err)
			}
			return nil
		})
	})
	if returned(err, refusedValues[:]...) {
		return refusal(err, b.tokenFlags(at))
	}
	return err
}

// loginSecret returns the PIN to give, empty for a token with a PIN pad.
func (b *Backend) loginSecret(ctx context.Context, flags uint, pin *holdfast.Secret) (holdfast.Secret, error) {
	switch {
	case pin != nil:
		return *pin, nil
	case flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0:
		return holdfast.Secret{}, nil
	default:
		return b.pins.get(ctx)
	}
}

// login calls C_Login under the gate.
func (s *session) login(user uint, pin holdfast.Secret) error {
	if !s.c.mod.enter(s.c.epoch) {
		return errExpired
	}
	defer s.c.mod.leave()
	return s.p11.Login(s.handle, user, string(pin.Bytes()))
}

// tokenFlags asks for the token's flags as they are after a refused PIN; what they were at serves where it does not answer.
func (b *Backend) tokenFlags(at place) uint {
	var now pkcs11.TokenInfo
	err := b.mod.call(b.cfg.CallTimeout, func() (err error) {
		now, err = b.mod.p11.GetTokenInfo(at.slot)
		return err
	})
	if err != nil {
		return at.token.Flags
	}
	return now.Flags
}

// Unlock gives the token a PIN on behalf of a person, once, also after a refusal. The PIN is used for all further logins
// of this Backend. While the user is logged in there is nothing to unlock and the PIN is not tried. It returns
// ErrInvalid for an empty PIN, ErrAuth when the token refuses this one too, ErrLocked when it takes no PIN at all.
func (b *Backend) Unlock(ctx context.Context, pin holdfast.Secret) error {
	if pin.Len() == 0 {
		return holdfast.Errorf(holdfast.ErrInvalid, "unlock", "the PIN is empty")
	}
	kept := holdfast.NewSecret(append([]byte(nil), pin.Bytes()...))
	if _, err := b.connect(ctx, preparation{pin: &kept}); err != nil {
		return failure("unlock", "", err)
	}
	return nil
}

// PINStatus returns what CK_TOKEN_INFO.flags say of the PIN. PKCS#11 does not count tries: Retries is 0 for a locked
// PIN, 1 before the last try, RetriesUnknown otherwise.
func (b *Backend) PINStatus(ctx context.Context) (holdfast.PINStatus, error) {
	at, err := b.find(ctx, 1)
	if err != nil {
		return holdfast.PINStatus{}, failure("PIN status", "", err)
	}
	state, err := b.pins.memory.LoadPIN(ctx, b.pins.device)
	if err != nil {
		return holdfast.PINStatus{}, failure("PIN status", "", err)
	}
	flags := at.token.Flags
	status := holdfast.PINStatus{
		Retries: triesLeft(flags),
		Refused: b.pins.refused.Load() || state == holdfast.PINRefused,
	}
	switch {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		status.Note = "the PIN is locked"
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		status.Note = "last try"
	case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		status.Note = "a wrong PIN was given since the last login"
	case flags&pkcs11.CKF_USER_PIN_TO_BE_CHANGED != 0:
		status.Note = "the PIN has to be changed"
	}
	return status, nil
}
