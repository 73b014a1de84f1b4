//go:build cgo && !nopkcs11

package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// onToken runs op in a session of the backend, as another program with the PIN would.
func onToken(t testing.TB, b *Backend, op func(s *session) error) {
	t.Helper()
	if err := b.run(t.Context(), op); err != nil {
		t.Fatal(err)
	}
}

// foreign makes a P-256 key pair as other programs make them: with few attributes.
func foreign(t testing.TB, b *Backend, params []byte, id, label string) pair {
	t.Helper()
	var made pair
	onToken(t, b, func(s *session) (err error) {
		both := []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, label)}
		if id != "" {
			both = append(both, attr(pkcs11.CKA_ID, id))
		}
		pub := append(both[:len(both):len(both)], attr(pkcs11.CKA_EC_PARAMS, params), attr(pkcs11.CKA_VERIFY, true))
		priv := append(both[:len(both):len(both)], attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SIGN, true))
		made, err = s.generatePair([]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}, pub, priv)
		return err
	})
	return made
}

func (p pair) destroyPublic(t testing.TB, b *Backend) {
	t.Helper()
	onToken(t, b, func(s *session) error { return s.destroy(p.public) })
}

var (
	paramsP256 = curveOf(holdfast.ES256).params[0]
	paramsP224 = []byte("\x06\x05\x2b\x81\x04\x00\x21")
)

// key finds a key or fails the test.
func findKey(t testing.TB, b *Backend, ref string) holdfast.Key {
	t.Helper()
	k, err := b.Key(t.Context(), holdfast.Ref(ref))
	if err != nil {
		t.Fatalf("key %s: %v", ref, err)
	}
	return k
}

func keyCode(t testing.TB, b *Backend, ref string, want holdfast.Code) {
	t.Helper()
	if _, err := b.Key(t.Context(), holdfast.Ref(ref)); !errors.Is(err, want) {
		t.Errorf("key %s: got error %v, want code %q", ref, err, want)
	}
}

func TestAdoptsByLabelAndByIdentifier(t *testing.T) {
	b, token := softHSM(t)
	foreign(t, b, paramsP256, "\x01\x02", "with both")
	foreign(t, b, paramsP256, "", "label only")
	byLabel := findKey(t, b, "pkcs11:object=with%20both")
	byID := findKey(t, b, "pkcs11:id=%01%02;token=holdfast%20test")
	if byLabel.Ref() != byID.Ref() || byLabel.Ref() != holdfast.Ref("pkcs11:token=holdfast%20test;serial="+token.Serial+";id=%01%02") {
		t.Errorf("one key has the refs %s and %s", byLabel.Ref(), byID.Ref())
	}
	signs(t, byLabel)
	labelOnly := findKey(t, b, "pkcs11:type=private;object=label%20only;serial="+token.Serial)
	signs(t, labelOnly)
	signs(t, findKey(t, b, string(labelOnly.Ref())))
	keyCode(t, b, "pkcs11:object=absent", holdfast.ErrNotFound)
	keyCode(t, b, "pkcs11:token=other;object=with%20both", holdfast.ErrInvalid)
	keyCode(t, b, "pkcs11:token=holdfast%20test", holdfast.ErrInvalid)
	keyCode(t, b, "pkcs11:object=with%20both;type=cert", holdfast.ErrInvalid)
	keyCode(t, b, "pkcs11:object=with%20both;slot-id=1", holdfast.ErrInvalid)
	keyCode(t, b, "pkcs11:object=with%20both?pin-value=1234", holdfast.ErrInvalid)
}

func TestAmbiguousKeys(t *testing.T) {
	b, _ := softHSM(t)
	foreign(t, b, paramsP256, "same", "one")
	foreign(t, b, paramsP256, "same", "two")
	foreign(t, b, paramsP256, "twin", "twin")
	foreign(t, b, paramsP256, "twin", "twin")
	keyCode(t, b, "pkcs11:id=same", holdfast.ErrInvalid)
	keyCode(t, b, "pkcs11:object=twin", holdfast.ErrInvalid)
	one, two := findKey(t, b, "pkcs11:object=one"), findKey(t, b, "pkcs11:object=two")
	if one.Ref() == two.Ref() {
		t.Fatal("two keys with one ref")
	}
	// Each has two public keys with its CKA_ID; only one verifies.
	signs(t, one)
	signs(t, two)
	if err := b.Destroy(t.Context(), "pkcs11:id=same"); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("destroying an ambiguous key: %v", err)
	}
	if err := b.Destroy(t.Context(), one.Ref()); err != nil {
		t.Fatal(err)
	}
	signs(t, two)
	var usable, errs int
	for _, err := range b.Keys(t.Context()) {
		if err != nil {
			errs++
			continue
		}
		usable++
	}
	if usable != 1 || errs != 2 {
		t.Errorf("%d usable keys and %d errors listed, want 1 and 2", usable, errs)
	}
}

// certify puts a certificate for a public key on the token.
func certify(t testing.TB, b *Backend, pub crypto.PublicKey, id string) {
	t.Helper()
	ca, err := ecdsa.GenerateKey(pub.(*ecdsa.PublicKey).Curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, ca)
	if err != nil {
		t.Fatal(err)
	}
	onToken(t, b, func(s *session) error {
		_, err := s.p11.CreateObject(s.handle, []*pkcs11.Attribute{
			attr(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE), attr(pkcs11.CKA_CERTIFICATE_TYPE, pkcs11.CKC_X_509),
			attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, id), attr(pkcs11.CKA_SUBJECT, []byte("\x30\x00")), attr(pkcs11.CKA_VALUE, der),
		})
		return err
	})
}

func TestPublicKeyFromCertificate(t *testing.T) {
	b, _ := softHSM(t)
	made := foreign(t, b, paramsP256, "certified", "certified")
	var pub crypto.PublicKey
	onToken(t, b, func(s *session) (err error) {
		pub, err = s.readPublic(holdfast.ES256, made.public)
		return err
	})
	made.destroyPublic(t, b)
	keyCode(t, b, "pkcs11:id=certified", holdfast.ErrUnsupported)
	certify(t, b, pub, "certified")
	onToken(t, b, func(s *session) error { _, err := s.enumerate(); return err })
	k := findKey(t, b, "pkcs11:id=certified")
	signs(t, k)
	if err := b.Destroy(t.Context(), k.Ref()); err != nil {
		t.Fatal(err)
	}
	onToken(t, b, func(s *session) error {
		left, err := s.find(attr(pkcs11.CKA_ID, "certified"))
		if err == nil && len(left) != 1 {
			t.Errorf("%d objects are left, want the certificate, which somebody else put there", len(left))
		}
		return err
	})
}

// TestPlantedPublicKey puts another public key under a key's identifier, for which no PIN is needed: the key's own is
// found by what verifies.
func TestPlantedPublicKey(t *testing.T) {
	b, token := softHSM(t)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	u, err := parseURI(string(k.Ref()))
	if err != nil {
		t.Fatal(err)
	}
	planted := foreign(t, b, paramsP256, u["id"], "test ES256")
	onToken(t, b, func(s *session) error { return s.destroy(planted.private) })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openConfig(t, configOf(token))
	again := findKey(t, b, string(k.Ref()))
	if !samePublic(again.Public(), k.Public()) {
		t.Fatal("the planted public key was taken for the key's own")
	}
	signs(t, again)
	if err := b.Destroy(t.Context(), k.Ref()); err != nil {
		t.Fatal(err)
	}
}

func TestKeysItCannotUse(t *testing.T) {
	b, _ := softHSM(t)
	foreign(t, b, paramsP224, "p224", "p224")
	onToken(t, b, func(s *session) error {
		_, err := s.generateSecret(pkcs11.CKM_AES_KEY_GEN, []*pkcs11.Attribute{
			attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, "aes128"), attr(pkcs11.CKA_VALUE_LEN, 16), attr(pkcs11.CKA_ENCRYPT, true),
		})
		return err
	})
	good := generate(t, b, holdfast.EdDSA, holdfast.Resident)
	generate(t, b, holdfast.ES256, holdfast.Wrapped) // makes the key-wrapping key
	if _, err := good.(holdfast.Attester).Attest(t.Context(), make([]byte, 32)); err != nil {
		t.Fatal(err) // makes the attestation key
	}
	keyCode(t, b, "pkcs11:object=p224", holdfast.ErrUnsupported)
	keyCode(t, b, "pkcs11:object=aes128", holdfast.ErrUnsupported)
	keyCode(t, b, "pkcs11:object=holdfast%20attestation", holdfast.ErrUnsupported)
	keyCode(t, b, "pkcs11:object=holdfast%20wrapping%20key", holdfast.ErrUnsupported)
	if err := b.Destroy(t.Context(), "pkcs11:object=holdfast%20wrapping%20key"); !errors.Is(err, holdfast.ErrUnsupported) {
		t.Errorf("destroying the key-wrapping key: %v", err)
	}
	if _, err := b.Generate(t.Context(), holdfast.KeySpec{Label: attestorLabel, Algorithm: holdfast.ES256}); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("generate under a label of Holdfast's own: %v", err)
	}
	var keys, errs int
	for k, err := range b.Keys(t.Context()) {
		switch {
		case err == nil && k.Ref() == good.Ref():
			keys++
		case errors.Is(err, holdfast.ErrUnsupported):
			errs++
		default:
			t.Errorf("listed %v, %v", k, err)
		}
	}
	if keys != 1 || errs != 2 {
		t.Errorf("%d keys and %d errors listed, want 1 and 2", keys, errs)
	}
}

func TestDestroySweepsWhatAnInterruptedGenerateLeft(t *testing.T) {
	b, _ := softHSM(t)
	spec, ref, err := b.Plan(t.Context(), holdfast.KeySpec{Label: "planned", Algorithm: holdfast.ES256})
	if err != nil {
		t.Fatal(err)
	}
	half := foreign(t, b, paramsP256, string(spec.ID), "planned")
	onToken(t, b, func(s *session) error { return s.destroy(half.private) })
	keyCode(t, b, string(ref), holdfast.ErrNotFound)
	if err := b.Destroy(t.Context(), ref); err != nil {
		t.Fatalf("sweep: %v", err)
	}
	if err := b.Destroy(t.Context(), ref); !errors.Is(err, holdfast.ErrNotFound) {
		t.Errorf("sweep again: %v", err)
	}
	// A public key that was imported is somebody else's, whatever its identifier.
	imported := foreign(t, b, paramsP256, "peer", "peer")
	onToken(t, b, func(s *session) error { return s.destroy(imported.private) })
	if err := b.Destroy(t.Context(), "pkcs11:id=peer"); !errors.Is(err, holdfast.ErrNotFound) {
		t.Errorf("destroying a lone public key: %v", err)
	}
}
