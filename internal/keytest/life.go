package keytest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"testing"

	"holdfast"
)

// generate makes a key that is destroyed at the end of the test.
func (s *suite) generate(t *testing.T, b holdfast.Backend, spec holdfast.KeySpec) holdfast.Key {
	t.Helper()
	k, err := b.Generate(t.Context(), spec)
	if err != nil {
		t.Fatalf("generate %s %s: %v", spec.Residence, spec.Algorithm, err)
	}
	s.destroyLater(t, b, k.Ref(), spec.Residence)
	return k
}

func (s *suite) destroyLater(t *testing.T, b holdfast.Backend, ref holdfast.Ref, r holdfast.Residence) {
	d, ok := holdfast.As[holdfast.Destroyer](b)
	if !ok || r == holdfast.Wrapped {
		return
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context()) // which has ended when cleanups run
		if err := d.Destroy(ctx, ref); err != nil && !errors.Is(err, holdfast.ErrNotFound) && !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("destroy %s: %v", ref, err)
		}
	})
}

// lifeOfKey makes a key, uses it in every way its algorithm allows, finds it again after the device was closed and
// opened, and destroys it.
func (s *suite) lifeOfKey(t *testing.T, a holdfast.Algorithm, r holdfast.Residence) {
	b := s.Open(t)
	k, err := b.Generate(t.Context(), holdfast.KeySpec{Label: s.label(string(a)), Algorithm: a, Residence: r})
	if err != nil {
		_ = b.Close()
		t.Fatalf("generate: %v", err)
	}
	s.table.add(a, "generate "+r.String())
	public := k.Public()
	checkIdentity(t, k, a)
	s.use(t, k)
	blob := s.blobOf(t, k, r)
	if err := b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}

	b = s.open(t)
	again := s.reopen(t, b, k.Ref(), blob)
	s.destroyLater(t, b, k.Ref(), r)
	if again.Ref() != k.Ref() {
		t.Errorf("after reopening the ref is %s, was %s", again.Ref(), k.Ref())
	}
	checkIdentity(t, again, a)
	if !samePublic(public, again.Public()) {
		t.Errorf("after reopening the public key is another one")
	}
	s.use(t, again)
	s.table.add(a, "reopen")
	if r == holdfast.Resident {
		s.listed(t, b, again)
		s.destroy(t, b, again)
	}
}

func checkIdentity(t *testing.T, k holdfast.Key, a holdfast.Algorithm) {
	t.Helper()
	if k.Ref() == "" {
		t.Error("the key has no ref")
	}
	if k.Algorithm() != a {
		t.Errorf("the key's algorithm is %s, want %s", k.Algorithm(), a)
	}
	if err := a.CheckPublic(k.Public()); err != nil {
		t.Errorf("public key: %v", err)
	}
}

// blobOf returns what the caller of Generate has to keep: nothing where the backend keeps it, as a daemon does.
func (s *suite) blobOf(t *testing.T, k holdfast.Key, r holdfast.Residence) []byte {
	t.Helper()
	if !s.needs(Loader) {
		return nil
	}
	w, ok := holdfast.As[holdfast.WrappedKey](k)
	if r == holdfast.Wrapped && (!ok || len(w.Blob()) == 0) {
		t.Fatal("a wrapped key has no blob")
	}
	if ok && r == holdfast.Wrapped {
		return bytes.Clone(w.Blob())
	}
	return nil
}

func (s *suite) reopen(t *testing.T, b holdfast.Backend, ref holdfast.Ref, blob []byte) holdfast.Key {
	t.Helper()
	var k holdfast.Key
	var err error
	if blob == nil {
		k, err = b.Key(t.Context(), ref)
	} else {
		l, ok := holdfast.As[holdfast.Loader](b)
		if !ok {
			t.Fatal("the backend makes wrapped keys and cannot load them")
		}
		k, err = l.Load(t.Context(), blob)
	}
	if err != nil {
		t.Fatalf("find the key again: %v", err)
	}
	return k
}

// use tries every operation of the key's algorithm, and that the others are refused.
func (s *suite) use(t *testing.T, k holdfast.Key) {
	t.Helper()
	a := k.Algorithm()
	switch a.Use() {
	case holdfast.UseSign:
		s.sign(t, k)
		s.table.add(a, "sign")
		refuse(t, k, holdfast.UseAgree, holdfast.UseEncrypt)
	case holdfast.UseAgree:
		s.agree(t, k)
		s.table.add(a, "agree")
		refuse(t, k, holdfast.UseSign, holdfast.UseEncrypt)
	case holdfast.UseEncrypt:
		s.encrypt(t, k)
		s.table.add(a, "encrypt")
		refuse(t, k, holdfast.UseSign, holdfast.UseAgree)
	}
	s.attest(t, k)
}

func (s *suite) sign(t *testing.T, k holdfast.Key) {
	t.Helper()
	a, ctx := k.Algorithm(), t.Context()
	for _, message := range []string{"", "a", "conformance of " + string(a)} {
		digest := a.Digest([]byte(message))
		signature, err := k.Sign(ctx, digest, nil)
		if err != nil {
			t.Fatalf("sign: %v", err)
		}
		if err := holdfast.Verify(a, k.Public(), digest, signature); err != nil {
			t.Fatalf("the signature over %q: %v", message, err)
		}
		other := a.Digest([]byte(message + "!"))
		if holdfast.Verify(a, k.Public(), other, signature) == nil {
			t.Fatal("the signature verifies for another message")
		}
	}
	signature, err := crypto.SignMessage(holdfast.Signer(ctx, k), rand.Reader, []byte("by crypto.Signer"), signerOpts(a))
	if err != nil {
		t.Fatalf("sign by crypto.Signer: %v", err)
	}
	if err := holdfast.Verify(a, k.Public(), a.Digest([]byte("by crypto.Signer")), signature); err != nil {
		t.Fatalf("by crypto.Signer: %v", err)
	}
	s.badInput(t, k)
}

func signerOpts(a holdfast.Algorithm) crypto.SignerOpts {
	if a.JOSE() == "PS256" {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash()}
	}
	return a.Hash()
}

func (s *suite) badInput(t *testing.T, k holdfast.Key) {
	t.Helper()
	a, ctx := k.Algorithm(), t.Context()
	if a == holdfast.EdDSA {
		digest := sha256.Sum256(nil)
		_, err := k.Sign(ctx, digest[:], crypto.SHA256)
		wantCode(t, err, holdfast.ErrInvalid, "EdDSA of a SHA-256 digest")
		_, err = k.Sign(ctx, make([]byte, holdfast.MaxMessage+1), nil)
		wantCode(t, err, holdfast.ErrInvalid, "a message too long")
		return
	}
	for _, n := range []int{0, a.Hash().Size() - 1, a.Hash().Size() + 1, 4096} {
		_, err := k.Sign(ctx, make([]byte, n), nil)
		wantCode(t, err, holdfast.ErrInvalid, "a digest of the wrong length")
	}
	_, err := k.Sign(ctx, make([]byte, 20), crypto.SHA1)
	wantCode(t, err, holdfast.ErrInvalid, "a SHA-1 digest")
}

func (s *suite) agree(t *testing.T, k holdfast.Key) {
	t.Helper()
	agreer, ok := holdfast.As[holdfast.Agreer](k)
	if !ok {
		t.Fatal("an ECDH key is no Agreer")
	}
	exchanger, err := agreer.Agreement(t.Context())
	if err != nil {
		t.Fatalf("agreement: %v", err)
	}
	public := k.Public().(*ecdh.PublicKey)
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exchanger.ECDH(peer.PublicKey())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the device agrees on another secret than the peer: %v", err)
	}
	openHPKE(t, exchanger)
}

// openHPKE opens with the key in the device what crypto/hpke sealed to its public half (RFC 9180).
func openHPKE(t *testing.T, exchanger ecdh.KeyExchanger) {
	t.Helper()
	private, err := hpke.NewDHKEMPrivateKey(exchanger)
	if err != nil {
		t.Fatalf("hpke: %v", err)
	}
	sealed, err := hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("info"), []byte("to the device"))
	if err != nil {
		t.Fatalf("hpke seal: %v", err)
	}
	plain, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("info"), sealed)
	if err != nil || string(plain) != "to the device" {
		t.Fatalf("hpke open: %q, %v", plain, err)
	}
	if _, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("other"), sealed); err == nil {
		t.Fatal("hpke opens under another info")
	}
}

func (s *suite) encrypt(t *testing.T, k holdfast.Key) {
	t.Helper()
	e, ok := holdfast.As[holdfast.Encrypter](k)
	if !ok {
		t.Fatal("an AES key is no Encrypter")
	}
	ctx := t.Context()
	for _, plaintext := range [][]byte{{}, []byte("secret"), bytes.Repeat([]byte{7}, 10000)} {
		sealed, err := e.Encrypt(ctx, plaintext, []byte("aad"))
		if err != nil {
			t.Fatalf("encrypt: %v", err)
		}
		if len(sealed) != 12+len(plaintext)+16 {
			t.Fatalf("ciphertext of %d bytes for %d", len(sealed), len(plaintext))
		}
		got, err := e.Decrypt(ctx, sealed, []byte("aad"))
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("decrypt: %v", err)
		}
		_, err = e.Decrypt(ctx, sealed, []byte("other"))
		wantCode(t, err, holdfast.ErrIntegrity, "other additional data")
		for _, i := range []int{0, 12, len(sealed) - 1} {
			edited := bytes.Clone(sealed)
			edited[i] ^= 1
			_, err = e.Decrypt(ctx, edited, []byte("aad"))
			wantCode(t, err, holdfast.ErrIntegrity, "an edited ciphertext")
		}
		_, err = e.Decrypt(ctx, sealed[:len(sealed)-1], []byte("aad"))
		wantCode(t, err, holdfast.ErrIntegrity, "a truncated ciphertext")
	}
	_, err := e.Decrypt(ctx, nil, nil)
	wantCode(t, err, holdfast.ErrIntegrity, "an empty ciphertext")
}

// refuse checks that the key cannot be used otherwise than its algorithm says.
func refuse(t *testing.T, k holdfast.Key, uses ...holdfast.Use) {
	t.Helper()
	for _, u := range uses {
		var err error
		switch u {
		case holdfast.UseSign:
			_, err = k.Sign(t.Context(), make([]byte, 32), nil)
		case holdfast.UseAgree:
			agreer, ok := holdfast.As[holdfast.Agreer](k)
			if !ok {
				continue
			}
			_, err = agreer.Agreement(t.Context())
		case holdfast.UseEncrypt:
			e, ok := holdfast.As[holdfast.Encrypter](k)
			if !ok {
				continue
			}
			_, err = e.Encrypt(t.Context(), []byte("x"), nil)
		}
		wantCode(t, err, holdfast.ErrUnsupported, "an operation of another use: "+u.String())
	}
}

func (s *suite) attest(t *testing.T, k holdfast.Key) {
	t.Helper()
	attester, ok := holdfast.As[holdfast.Attester](k)
	if !ok {
		if s.needs(Attester) {
			t.Error("the key is no Attester")
		}
		return
	}
	challenge := sha256.Sum256([]byte(k.Ref()))
	evidence, err := attester.Attest(t.Context(), challenge[:])
	if err != nil {
		t.Fatalf("attest: %v", err)
	}
	if evidence.Kind == "" || len(evidence.Files) == 0 {
		t.Fatal("the evidence is empty")
	}
	_, err = attester.Attest(t.Context(), challenge[:31])
	wantCode(t, err, holdfast.ErrInvalid, "a challenge of 31 bytes")
	s.table.add(k.Algorithm(), "attest")
}

func (s *suite) listed(t *testing.T, b holdfast.Backend, k holdfast.Key) {
	t.Helper()
	for got, err := range b.Keys(t.Context()) {
		if err == nil && got.Ref() == k.Ref() {
			return
		}
	}
	t.Errorf("Keys does not list %s", k.Ref())
}

func (s *suite) destroy(t *testing.T, b holdfast.Backend, k holdfast.Key) {
	t.Helper()
	d, ok := holdfast.As[holdfast.Destroyer](b)
	if !ok {
		t.Fatal("the backend is no Destroyer")
	}
	if err := d.Destroy(t.Context(), k.Ref()); err != nil {
		t.Fatalf("destroy: %v", err)
	}
	_, err := b.Key(t.Context(), k.Ref())
	wantCode(t, err, holdfast.ErrNotFound, "looking for a destroyed key")
	if k.Algorithm().Use() == holdfast.UseSign {
		_, err = k.Sign(t.Context(), k.Algorithm().Digest([]byte("after")), nil)
		wantCode(t, err, holdfast.ErrNotFound, "signing with a destroyed key")
	}
	wantCode(t, d.Destroy(t.Context(), k.Ref()), holdfast.ErrNotFound, "destroying twice")
	s.table.add(k.Algorithm(), "destroy")
}
