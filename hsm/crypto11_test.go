//go:build cgo && !nopkcs11

package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"

	"github.com/ThalesGroup/crypto11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// crypto11 is an independent PKCS#11 client: what it makes is adopted here, and what is made here is used by it.

func openCrypto11(t childTask) (*crypto11.Context, error) {
	return crypto11.Configure(&crypto11.Config{Path: t.Module, TokenLabel: t.Label, Pin: t.PIN})
}

// crypto11Makes makes an ECDSA and an RSA key and returns their public halves.
func crypto11Makes(t childTask) (any, error) {
	c, err := openCrypto11(t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	ec, err := c.GenerateECDSAKeyPairWithLabel([]byte("c11-ec"), []byte("by crypto11"), elliptic.P256())
	if err != nil {
		return nil, err
	}
	rsaKey, err := c.GenerateRSAKeyPairWithLabel([]byte("c11-rsa"), []byte("by crypto11 too"), 2048)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for id, k := range map[string]crypto.Signer{"c11-ec": ec, "c11-rsa": rsaKey} {
		if out[id], err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// crypto11Uses signs with a key that was made by this package and returns the signature.
func crypto11Uses(t childTask) (any, error) {
	c, err := openCrypto11(t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	k, err := c.FindKeyPair(t.KeyID, []byte(t.KeyLabel))
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, errors.New("crypto11 does not find the key")
	}
	want, err := x509.ParsePKIXPublicKey(t.Public)
	if err != nil {
		return nil, err
	}
	if !samePublic(k.Public(), want) {
		return nil, fmt.Errorf("crypto11 finds another public key: %v", k.Public())
	}
	digest := sha256.Sum256([]byte("by crypto11"))
	return k.Sign(rand.Reader, digest[:], crypto.SHA256)
}

func taskFor(name string, token *softhsmtest.Token) childTask {
	return childTask{Name: name, Module: token.Module, Label: token.Label, Serial: token.Serial, PIN: token.PIN}
}

func TestAdoptsKeysOfCrypto11(t *testing.T) {
	token := softhsmtest.TokenFor(t, "crypto11 makes")
	var made map[string][]byte
	inChild(t, taskFor("crypto11 makes", token), []string{"SOFTHSM2_CONF=" + token.Conf}, nil, &made)
	b := openConfig(t, configOf(token))
	for ref, id := range map[string]string{
		"pkcs11:object=by%20crypto11": "c11-ec", "pkcs11:id=c11-ec": "c11-ec",
		"pkcs11:object=by%20crypto11%20too": "c11-rsa", "pkcs11:id=c11-rsa;type=private": "c11-rsa",
	} {
		k := findKey(t, b, ref)
		der, err := encodeSPKI(k.Public())
		if err != nil || string(der) != string(made[id]) {
			t.Errorf("%s has another public key than crypto11 made (%v)", ref, err)
		}
		signs(t, k)
	}
	if a := findKey(t, b, "pkcs11:id=c11-rsa").Algorithm(); a != holdfast.RS256_2048 {
		t.Errorf("the RSA key of crypto11 is %s", a)
	}
}

func TestCrypto11UsesOurKeys(t *testing.T) {
	token := softhsmtest.TokenFor(t, "crypto11 uses")
	b := openConfig(t, configOf(token))
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.RS256_2048} {
		k := generate(t, b, a, holdfast.Resident)
		u, err := parseURI(string(k.Ref()))
		if err != nil {
			t.Fatal(err)
		}
		task := taskFor("crypto11 uses", token)
		task.KeyID, task.KeyLabel = []byte(u["id"]), "test "+string(a)
		if task.Public, err = encodeSPKI(k.Public()); err != nil {
			t.Fatal(err)
		}
		var signature []byte
		inChild(t, task, []string{"SOFTHSM2_CONF=" + token.Conf}, nil, &signature)
		digest := sha256.Sum256([]byte("by crypto11"))
		switch pub := k.Public().(type) {
		case *ecdsa.PublicKey:
			if !ecdsa.VerifyASN1(pub, digest[:], signature) {
				t.Errorf("%s: the signature by crypto11 does not verify", a)
			}
		case *rsa.PublicKey:
			if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], signature); err != nil {
				t.Errorf("%s: the signature by crypto11: %v", a, err)
			}
		}
		signs(t, k)
	}
}
