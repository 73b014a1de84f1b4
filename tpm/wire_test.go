package tpm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm/attestation"
)

// recorder keeps all that goes over the wire.
type recorder struct {
	wire
	bytes bytes.Buffer
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	r.bytes.Write(command)
	answer, err := r.wire.Send(command)
	r.bytes.Write(answer)
	return answer, err
}

func (r *recorder) saw(secret []byte) bool { return bytes.Contains(r.bytes.Bytes(), secret) }

func record(t *testing.T) (*Backend, *recorder) {
	t.Helper()
	r := new(recorder)
	b := openDevice(t, Config{wrapTransport: func(w wire) wire {
		r.wire = w
		return r
	}}, softhsmtest.TPMFor(t))
	return b, r
}

func TestSecretsAreEncryptedOnTheWire(t *testing.T) {
	b, r := record(t)
	for name, options := range map[string]*holdfast.SealOptions{
		"without condition": {},
		"with PCRs":         {PCRs: []int{7}},
		"with an AuthValue": {PCRs: []int{7}, AuthValue: holdfast.NewSecret([]byte("a password on the wire"))},
	} {
		r.bytes.Reset()
		blob, err := b.Seal(t.Context(), holdfast.NewSecret([]byte("a secret on the wire")), options)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSealed(blob)
		if err != nil {
			t.Fatal(err)
		}
		var sealKey []byte
		onConn(t, b, func(c *conn) error {
			sealKey, err = c.unseal(t.Context(), s, deriveAuth(options.AuthValue))
			return err
		})
		if _, err := s.open(sealKey); err != nil {
			t.Fatal(err)
		}
		if r.saw(sealKey) {
			t.Errorf("sealing %s: the key that encrypts the secret is on the wire", name)
		}
		if auth := deriveAuth(options.AuthValue); auth != nil && r.saw(auth) {
			t.Errorf("sealing %s: the authValue is on the wire", name)
		}
	}
	if t.Failed() || r.bytes.Len() == 0 {
		t.Fatal("nothing was recorded")
	}
}

// TestRecorderSees shows that the test above would see a secret that is not encrypted.
func TestRecorderSees(t *testing.T) {
	b, r := record(t)
	sealKey := bytes.Repeat([]byte{0x5a}, sealKeySize)
	onConn(t, b, func(c *conn) error {
		s := new(sealed)
		if err := c.seal(s, sealKey, nil); err != nil {
			return err
		}
		if r.saw(sealKey) {
			t.Error("the sealed key is on the wire")
		}
		handle, err := c.load(t.Context(), &s.object)
		if err != nil {
			return err
		}
		_, err = tpm2.Unseal{
			ItemHandle: tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: c.session.auth(nil)},
		}.Execute(c)
		return err
	})
	if !r.saw(sealKey) {
		t.Error("an unencrypted answer was not seen")
	}
}

func TestAgreementIsEncryptedOnTheWire(t *testing.T) {
	b, r := record(t)
	k := mustGenerate(t, b, holdfast.ECDHP256, holdfast.Wrapped)
	exchanger, err := k.(holdfast.Agreer).Agreement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	z, err := exchanger.ECDH(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if point := peer.PublicKey().Bytes()[1:33]; !r.saw(point) {
		t.Error("the other side's point was not recorded")
	}
	if r.saw(z) {
		t.Error("the agreed secret is on the wire")
	}
}

func TestActivatedCredentialIsEncryptedOnTheWire(t *testing.T) {
	b, r := record(t)
	secret := bytes.Repeat([]byte{0xc7}, 32)
	got, err := activate(t, b, b, secret)
	if err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("activate: %v", err)
	}
	if r.saw(secret) {
		t.Error("the credential's secret is on the wire")
	}
}

// activate makes a credential for the keys of one TPM and has another activate it.
func activate(t *testing.T, of, by *Backend, secret []byte) ([]byte, error) {
	t.Helper()
	ak, ek, err := of.AttestationKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	public, err := attestation.ParsePublic(ak)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := attestation.MakeCredential(ek, name.Buffer, secret)
	if err != nil {
		t.Fatal(err)
	}
	got, err := by.ActivateCredential(t.Context(), credential)
	return got.Bytes(), err
}

// forger changes the answers to one command, in one byte.
type forger struct {
	wire
	command tpm2.TPMCC
	at      *atomic.Int64 // which byte after the header; negative: none
	done    *atomic.Int64
}

func (f forger) Send(command []byte) ([]byte, error) {
	answer, err := f.wire.Send(command)
	at := int(f.at.Load())
	if err == nil && at >= 0 && tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == f.command && headerSize+at < len(answer) {
		answer[headerSize+at] ^= 1
		f.done.Add(1)
	}
	return answer, err
}

// TestForgedAnswers changes each byte of the answer to TPM2_Sign: no changed signature may come out.
func TestForgedAnswers(t *testing.T) {
	var at, done atomic.Int64
	at.Store(-1)
	b := openDevice(t, Config{wrapTransport: func(w wire) wire {
		return forger{w, tpm2.TPMCCSign, &at, &done}
	}}, softhsmtest.TPMFor(t))
	k := mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped)
	for i := int64(0); ; i++ {
		at.Store(i)
		done.Store(0)
		err := signed(t, k, "forged")
		if done.Load() == 0 {
			if i < 100 {
				t.Fatalf("only %d bytes were changed: %v", i, err)
			}
			break
		}
		if err == nil {
			t.Errorf("byte %d was changed unnoticed", i)
		}
	}
	at.Store(-1)
	mustSign(t, k, "after the forger has left")
}

// broken fails in the ways a connection does.
type broken struct {
	wire
	answer []byte
	err    error
}

func (b broken) Send([]byte) ([]byte, error) { return b.answer, b.err }

func TestBrokenWire(t *testing.T) {
	for name, w := range map[string]broken{
		"error":       {err: errors.New("unplugged")},
		"no answer":   {},
		"a few bytes": {answer: []byte{0x80, 1, 0}},
	} {
		p := &patient{wire: w}
		_, err := p.Send(make([]byte, headerSize))
		if !isLost(err) || holdfast.CodeOf(translate("test", "", err)) != holdfast.ErrUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPatience has a TPM say twice that it is not ready.
func TestPatience(t *testing.T) {
	answers := []tpm2.TPMRC{tpm2.TPMRCTesting, tpm2.TPMRCRetry, tpm2.TPMRCSuccess}
	p := &patient{wire: scripted{&answers}, limit: defaultCommandTimeout}
	answer, err := p.Send(make([]byte, headerSize))
	if err != nil || len(answers) != 0 || binary.BigEndian.Uint32(answer[6:]) != 0 {
		t.Errorf("answer %x, error %v, %d answers left", answer, err, len(answers))
	}
}

// scripted answers with one response code after the other.
type scripted struct{ answers *[]tpm2.TPMRC }

func (s scripted) Send([]byte) ([]byte, error) {
	rc := (*s.answers)[0]
	*s.answers = (*s.answers)[1:]
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, headerSize}, uint32(rc)), nil
}

func (s scripted) Close() error { return nil }

// TestCFB compares with crypto/cipher, for lengths around blocks.
func TestCFB(t *testing.T) {
	key, iv := make([]byte, 16), make([]byte, 16)
	rand.Read(key)
	rand.Read(iv)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 70 {
		plain := make([]byte, n)
		rand.Read(plain)
		want := make([]byte, n)
		//lint:ignore SA1019 deprecated for want of authentication, and the oracle here
		cipher.NewCFBEncrypter(block, iv).XORKeyStream(want, plain)
		got := bytes.Clone(plain)
		cfb(block, iv, got, got)
		if !bytes.Equal(got, want) {
			t.Fatalf("encrypting %d bytes", n)
		}
		cfb(block, iv, got, bytes.Clone(got))
		if !bytes.Equal(got, plain) {
			t.Fatalf("decrypting %d bytes", n)
		}
	}
}

// FuzzAnswer gives the parsers of answers what no TPM says.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Add([]byte{0x80, 2, 0, 0, 0, 14, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0x18, 0, 0x0b, 0, 1, 5, 0, 1, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decodeSignature(data)
		if len(data) < headerSize {
			return // which patient refuses
		}
		use := sessionUse{session: &session{key: make([]byte, 32), nonceCaller: make([]byte, nonceSize)}}
		if _, err := use.open(tpm2.TPMCCSign, data); err == nil {
			t.Error("an answer without a valid HMAC was taken")
		}
	})
}
