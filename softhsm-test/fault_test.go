package softhsmtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"holdfast/softhsm-test/vpiv"
)

// This file shows what each fault of a card looks like to a PC/SC client.

const insAuthenticate = 0x87

// faulty is a card with a key in 9A, opened.
type faulty struct {
	t      *testing.T
	reader *Reader
	card   *vpiv.Card
	yk     *piv.YubiKey
	public *ecdsa.PublicKey
	key    crypto.Signer
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{t: t, reader: ReaderFor(t), card: newCard(t, vpiv.Config{Serial: 8})}
	insert(t, f.reader, f.card)
	f.yk = open(t, f.reader, 0)
	public, err := f.yk.GenerateKey(factoryKey, piv.SlotAuthentication, policies(piv.AlgorithmEC256))
	if err != nil {
		t.Fatal(err)
	}
	f.public = public.(*ecdsa.PublicKey)
	f.take()
	return f
}

// take gets the key from the open card.
func (f *faulty) take() {
	f.t.Helper()
	key, err := f.yk.PrivateKey(piv.SlotAuthentication, f.public, piv.KeyAuth{PIN: piv.DefaultPIN})
	if err != nil {
		f.t.Fatal(err)
	}
	f.key = key.(crypto.Signer)
}

// sign signs and says whether the signature verifies.
func (f *faulty) sign() (valid bool, err error) {
	digest := sha256.Sum256([]byte("message"))
	signature, err := f.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	return err == nil && ecdsa.VerifyASN1(f.public, digest[:], signature), err
}

func (f *faulty) mustSign() {
	f.t.Helper()
	if valid, err := f.sign(); err != nil || !valid {
		f.t.Errorf("signature valid %v, %v", valid, err)
	}
}

// reinsert puts the card back that a fault pulled out, and opens it.
func (f *faulty) reinsert() {
	f.t.Helper()
	_ = f.yk.Close() // the handle is of a card that has left
	if err := f.reader.Insert(f.t.Context(), 0, f.card); err != nil {
		f.t.Fatal(err)
	}
	f.yk = open(f.t, f.reader, 0)
	f.take()
}

func TestCardPulledWhileSigning(t *testing.T) {
	f := newFaulty(t)
	for _, effect := range []vpiv.Effect{vpiv.Pull{}, vpiv.Pull{Executed: true}, vpiv.Cut{}} {
		fault := f.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x9A, Effect: effect})
		if _, err := f.sign(); err == nil {
			t.Errorf("%#v: a card that left has signed", effect)
		}
		if fault.Struck() != 1 {
			t.Errorf("%#v: struck %d times", effect, fault.Struck())
		}
		if _, err := f.yk.Serial(); err == nil {
			t.Errorf("%#v: the old handle works", effect)
		}
		f.reinsert()
		f.mustSign()
	}
}

func TestCardPulledWhileGenerating(t *testing.T) {
	f := newFaulty(t)
	f.card.Inject(vpiv.Fault{INS: 0x47, Effect: vpiv.Pull{Executed: true}})
	if _, err := f.yk.GenerateKey(factoryKey, piv.SlotSignature, policies(piv.AlgorithmEC256)); err == nil {
		t.Error("a card that left has made a key")
	}
	f.reinsert()
	if info, err := f.yk.KeyInfo(piv.SlotSignature); err != nil || info.Algorithm != piv.AlgorithmEC256 {
		t.Errorf("the key is there, which the host was not told: %+v, %v", info, err)
	}
}

func TestWrongSignature(t *testing.T) {
	f := newFaulty(t)
	f.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x9A, Effect: vpiv.WrongAnswer{}})
	if valid, err := f.sign(); err != nil || valid {
		t.Errorf("signature valid %v, %v", valid, err)
	}
	f.mustSign()
}

func TestCommandUnknown(t *testing.T) {
	f := newFaulty(t)
	f.card.Inject(vpiv.Fault{INS: 0xF9, Lasting: true, Effect: vpiv.Answer(0x6D00)})
	for range 2 {
		if _, err := f.yk.Attest(piv.SlotAuthentication); err == nil {
			t.Error("attested")
		}
	}
	f.mustSign()
}

func TestPINBlockedMeanwhile(t *testing.T) {
	f := newFaulty(t)
	f.card.Inject(vpiv.Fault{INS: 0x20, After: 1, Effect: vpiv.BlockPIN{}})
	var auth piv.AuthErr
	if _, err := f.sign(); !errors.As(err, &auth) || auth.Retries != 0 {
		t.Errorf("blocked: %v", err)
	}
	if f.card.PINTries() != 0 {
		t.Errorf("%d tries left", f.card.PINTries())
	}
}

func TestTruncatedAnswer(t *testing.T) {
	f := newFaulty(t)
	f.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x9A, Effect: vpiv.Truncate(1)})
	if _, err := f.sign(); err == nil {
		t.Error("signed with one byte")
	}
	f.mustSign()
	f.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x9A, Effect: vpiv.Truncate(0)})
	if _, err := f.sign(); err == nil {
		t.Error("signed with nothing")
	}
	f.reinsert()
	f.mustSign()
}

func TestSlowCard(t *testing.T) {
	f := newFaulty(t)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	f.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x9A, Effect: vpiv.Hold{Entered: entered, Release: release}})
	type result struct {
		valid bool
		err   error
	}
	done := make(chan result, 1)
	go func() {
		valid, err := f.sign()
		done <- result{valid, err}
	}()
	<-entered
	select {
	case r := <-done:
		t.Errorf("signed while held up: %+v", r)
	default:
	}
	close(release)
	if r := <-done; r.err != nil || !r.valid {
		t.Errorf("released: %+v", r)
	}
}

func TestSlowCardPulled(t *testing.T) {
	f := newFaulty(t)
	entered := make(chan struct{}, 1)
	f.card.Inject(vpiv.Fault{INS: insAuthenticate, Slot: 0x9A, Effect: vpiv.Hold{Entered: entered, Release: make(chan struct{})}})
	done := make(chan error, 1)
	go func() {
		_, err := f.sign()
		done <- err
	}()
	<-entered
	if err := f.reader.Remove(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a card that left has signed")
	}
	f.reinsert()
	f.mustSign()
}
