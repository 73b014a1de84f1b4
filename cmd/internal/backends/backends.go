// Package backends is the one list of drivers: it turns a configured backend into one that custody can open. Nothing
// registers itself; what is not here cannot be configured.
package backends

import (
	"context"
	"time"

	"holdfast"
	"holdfast/cmd/internal/config"
	"holdfast/custody"
	"holdfast/custody/store"
	"holdfast/hsm"
	"holdfast/token"
	"holdfast/tpm"
)

// Wire returns what custody needs for each configured backend. Refused PINs and management keys are kept in st.
func Wire(cfg *config.Config, st *store.Store) []custody.BackendConfig {
	modules := hsm.NewModules()
	list := make([]custody.BackendConfig, 0, len(cfg.Backends))
	for _, b := range cfg.Backends {
		wired := custody.BackendConfig{
			Name:            b.Name,
			Kind:            b.Kind(),
			VerifyAfterSign: b.VerifyAfterSign == nil || *b.VerifyAfterSign,
		}
		switch {
		case b.PKCS11 != nil:
			wired.PIN = pinSource(b.PKCS11.PIN, b.Name)
			wired.Open = openHSM(b.Name, b.PKCS11, st, modules)
		case b.TPM2 != nil:
			wired.Open = openTPM(b.TPM2)
		case b.PIV != nil:
			wired.PIN = pinSource(b.PIV.PIN, b.Name)
			wired.Open = openToken(b.Name, b.PIV, st)
		}
		list = append(list, wired)
	}
	return list
}

type open = func(context.Context) (holdfast.Backend, error)

// pinSource returns the function that backends ask for a PIN.
func pinSource(pin config.PIN, what string) func(context.Context) (holdfast.Secret, error) {
	return func(ctx context.Context) (holdfast.Secret, error) { return pin.Read(ctx, what) }
}

func openHSM(name string, p *config.PKCS11, st *store.Store, modules *hsm.Modules) open {
	cfg := hsm.Config{
		Module:        p.Module,
		TokenLabel:    p.TokenLabel,
		Serial:        p.Serial,
		PIN:           pinSource(p.PIN, name),
		PINMemory:     st,
		MaxSessions:   p.MaxSessions,
		InitString:    p.InitString,
		Environment:   p.Environment,
		CallTimeout:   time.Duration(p.CallTimeout),
		WrappedCache:  p.CacheSize,
		SessionCopies: p.SessionCopies,
		Modules:       modules,
	}
	if p.SOPIN != nil {
		cfg.SOPIN = pinSource(*p.SOPIN, name+" (security officer)")
	}
	return func(ctx context.Context) (holdfast.Backend, error) { return result(hsm.Open(ctx, cfg)) }
}

func openTPM(p *config.TPM2) open {
	cfg := tpm.Config{Device: p.Device, ExpectedEK: p.ExpectedEK, CommandTimeout: time.Duration(p.CommandTimeout)}
	return func(ctx context.Context) (holdfast.Backend, error) { return result(tpm.Open(ctx, cfg)) }
}

func openToken(name string, p *config.PIV, st *store.Store) open {
	cfg := token.Config{
		Reader:      p.Reader,
		Serial:      p.Serial,
		PIN:         pinSource(p.PIN, name),
		PINMemory:   st,
		Secrets:     st,
		Environment: p.Environment,
		Idle:        time.Duration(p.IdleRelease),
	}
	if p.ManagementKey == "card" {
		cfg.ManagementKey = token.ManagementKeyOnCard
	}
	return func(ctx context.Context) (holdfast.Backend, error) { return result(token.Open(ctx, cfg)) }
}

// result keeps a nil *T from becoming a Backend that is not nil.
func result[T holdfast.Backend](b T, err error) (holdfast.Backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}
