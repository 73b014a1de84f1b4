//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// place is where a token was found.
type place struct {
	slot  uint
	epoch uint64
	token pkcs11.TokenInfo
}

// errAbsent means that the module works and has no such token now.
type errAbsent struct{ text string }

func (e errAbsent) Error() string { return e.text }

// locate finds the slot of the token that cfg selects. Slots are asked every time: modules renumber them.
func (m *module) locate(cfg *Config) (place, error) {
	m.gate.RLock()
	defer m.leave()
	slots, err := m.p11.GetSlotList(true)
	if err != nil {
		return place{}, fmt.Errorf("C_GetSlotList: %w", err)
	}
	var matches []place
	var seen []string
	for _, slot := range slots {
		info, err := m.p11.GetTokenInfo(slot)
		if err != nil {
			seen = append(seen, "one that answers "+ckrName(err))
			continue
		}
		label, serial := trim(info.Label), trim(info.SerialNumber)
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			seen = append(seen, strconv.Quote(label)+" serial "+serial)
		}
		if (cfg.TokenLabel == "" || label == cfg.TokenLabel) && (cfg.Serial == "" || serial == cfg.Serial) {
			matches = append(matches, place{slot, m.epoch, info})
		}
	}
	switch len(matches) {
	case 0:
		return place{}, errAbsent{fmt.Sprintf("no token with %s is in the module %s, which has %s",
			wanted(cfg), m.path, listOr(seen, "none"))}
	case 1:
		return matches[0], nil
	default:
		return place{}, holdfast.Errorf(holdfast.ErrInvalid, "open",
			"%d tokens have %s: give the serial number too; there are %s",
			len(matches), wanted(cfg), strings.Join(seen, ", "))
	}
}

// trim removes the blanks, and the zeros of careless modules, that pad strings in PKCS#11.
func trim(s string) string { return strings.TrimRight(s, " \x00") }

func wanted(cfg *Config) string {
	var parts []string
	if cfg.TokenLabel != "" {
		parts = append(parts, "label "+strconv.Quote(cfg.TokenLabel))
	}
	if cfg.Serial != "" {
		parts = append(parts, "serial "+cfg.Serial)
	}
	return strings.Join(parts, " and ")
}

func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

// locateTries is how often a missing token is looked for when a backend is opened. Processes that call C_Initialize of
// SoftHSM2 at the same moment miss tokens (46 of 120 starts with eight at once).
const locateTries = 5

// find finds the token, initializing the module anew where that may bring it back and harms nobody, up to tries times.
func (b *Backend) find(ctx context.Context, tries int) (place, error) {
	pause := 10 * time.Millisecond
	for try := 1; ; try++ {
		var at place
		var epoch uint64
		err := b.mod.call(b.cfg.CallTimeout, func() (err error) {
			epoch = b.mod.now()
			at, err = b.mod.locate(&b.cfg)
			return err
		})
		if err == nil {
			return at, nil
		}
		again := b.worthAnother(err)
		if !again || try >= tries {
			return place{}, unavailable(err)
		}
		if try > 1 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return place{}, ctx.Err()
			}
			pause *= 2
		}
		if err := b.mod.reinitialize(ctx, epoch, b.cfg.CallTimeout); err != nil {
			return place{}, unavailable(err)
		}
	}
}

// worthAnother reports whether initializing the module anew may help against err. When the module works and only the
// token is missing, other backends that use the module are not to suffer.
func (b *Backend) worthAnother(err error) bool {
	switch err.(type) {
	case *holdfast.Error:
		return false
	case errAbsent:
		return b.modules.sole(b.mod)
	}
	return b.modules.owns(b.mod)
}

// unavailable gives ErrUnavailable to what has no better code.
func unavailable(err error) error {
	if returned(err, vagueValues[:]...) {
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "the token does not answer: %w", err)
	}
	if _, ok := err.(errAbsent); ok {
		return holdfast.Errorf(holdfast.ErrUnavailable, "", "%w; insert or connect it, or correct the configuration", err)
	}
	return err
}
