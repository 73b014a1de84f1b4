//go:build cgo && !nopkcs11

package hsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// SoftHSM2 is full when its file system is. The child gives itself a small one.

// fullReport is what the child saw.
type fullReport struct {
	Made    int    // keys before the token was full
	Code    string // of the first that did not fit
	Error   string
	Listed  int // keys on the token afterwards
	Objects int // private and public key objects on the token afterwards
	Again   string
}

func fullTask(t childTask) (any, error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("keep mounts to this process: %w", err)
	}
	if err := syscall.Mount("tmpfs", t.Dir, "tmpfs", 0, "size=128k"); err != nil {
		return nil, fmt.Errorf("mount a small file system: %w", err)
	}
	token, err := softhsmtest.NewToken(t.Dir, "full")
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	b, err := Open(ctx, configOf(token))
	if err != nil {
		return nil, err
	}
	var r fullReport
	var refs []holdfast.Ref
	for err == nil && r.Made < 1000 {
		var k holdfast.Key
		k, err = b.Generate(ctx, holdfast.KeySpec{Label: "fill", Algorithm: holdfast.ES256})
		if err == nil {
			r.Made++
			refs = append(refs, k.Ref())
		}
	}
	r.Code, r.Error = holdfast.CodeOf(err).Error(), fmt.Sprint(err)
	if err := r.inspect(ctx, b); err != nil {
		return nil, err
	}
	for _, ref := range refs[:2] {
		if err := b.Destroy(ctx, ref); err != nil {
			return nil, err
		}
	}
	if _, err := b.Generate(ctx, holdfast.KeySpec{Label: "again", Algorithm: holdfast.ES256}); err != nil {
		r.Again = err.Error()
	}
	return r, b.Close()
}

// inspect counts what is on the token.
func (r *fullReport) inspect(ctx context.Context, b *Backend) error {
	for _, err := range b.Keys(ctx) {
		if err != nil {
			return err
		}
		r.Listed++
	}
	return b.run(ctx, func(s *session) error {
		all, err := s.find(attr(pkcs11.CKA_TOKEN, true))
		r.Objects = len(all)
		return err
	})
}

func TestFullToken(t *testing.T) {
	attributes := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var r fullReport
	inChild(t, childTask{Name: "full", Dir: t.TempDir()}, nil, attributes, &r)
	if r.Made < 2 || r.Code != holdfast.ErrBusy.Error() {
		t.Errorf("after %d keys the token is full with code %q: %s", r.Made, r.Code, r.Error)
	}
	if r.Listed != r.Made || r.Objects != 2*r.Made {
		t.Errorf("%d keys were made; %d keys and %d objects are on the token", r.Made, r.Listed, r.Objects)
	}
	if r.Again != "" {
		t.Errorf("after two keys were destroyed: %s", r.Again)
	}
}

func TestNotALibrary(t *testing.T) {
	text := t.TempDir() + "/module.so"
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, "/nonexistent/module.so", "libm.so.6", t.TempDir(), ""} {
		_, err := Open(t.Context(), Config{Module: path, TokenLabel: "x"})
		if !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestAbsentToken(t *testing.T) {
	token := softhsmtest.TokenFor(t, "present")
	cfg := configOf(token)
	cfg.TokenLabel = "absent"
	if _, err := Open(t.Context(), cfg); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("a label that no token has: %v", err)
	}
	cfg.TokenLabel, cfg.Serial = "", "0000"
	if _, err := Open(t.Context(), cfg); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("a serial number that no token has: %v", err)
	}
	cfg.Serial = ""
	if _, err := Open(t.Context(), cfg); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("no token named: %v", err)
	}
}

func TestTwoTokensOfOneLabel(t *testing.T) {
	dir := t.TempDir()
	first, err := softhsmtest.NewToken(dir, "twin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := softhsmtest.NewToken(dir, "twin"); err != nil {
		t.Fatal(err)
	}
	cfg := configOf(first)
	cfg.Serial = ""
	if _, err := Open(t.Context(), cfg); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a label that two tokens have: %v", err)
	}
}
