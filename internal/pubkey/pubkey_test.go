//lint:file-ignore SA1019 crypto/ecdsa has no other way to hold a secp256k1 key than the curve interface and X and Y.

package pubkey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"

	"holdfast"
	"holdfast/internal/pubkey"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/mr-tron/base58"
)

// known is one key, its SubjectPublicKeyInfo and its SSH form as OpenSSL 3 and OpenSSH wrote them.
type known struct {
	name string
	spki string // base64
	ssh  string // empty where SSH has no type
	kind any    // of the Go type that parsing returns
}

const (
	spkiP256 = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEB3QMGc/mwypMqlG799GPhsxXCdq1Dtns+LyP3wG3DWHtmq61U+CqQgs2KmK/0jvkBefkhOME" +
		"BcBqCtU0WyH2ug=="
	spkiP384 = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAECozGoD1dktWbXHYvF4xukIXnsRQoDdkWzlYoaYZq8A8MNtkQGf+fllchxARmXYfWExZpNivo2OWQ" +
		"xW/04FJUds72u314KiMZwG9ntA/+IizbjAZinWmtOuf6NY/XmV+z"
	spkiP521 = "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBAP+MRGvcYFQQ02u8IjXlIAshnw9oTDqIAbXmUKKsD2BcmWogzEAbk2i4yPjXZ0OJHqR0QjwjEyUo" +
		"a/wVjd/Y2BIB440VTY/JLRKQnDjtchqRYli8otTtECxLFs7WvsGzY1VO1bE+bUac5yLSo3bdP6GDZdfx5D4bDMxQNpJEG8OnDyc="
	spkiSecp256k1 = "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEoaRv8emMg6NorFIuOHMTcdiaTf1sIqS72yI53sDjmuLN33CzDKF+LdMpiHg/d78Skerb2InQ" +
		"QwDFljSNWIbwgA=="
	spkiEd25519 = "MCowBQYDK2VwAyEAJiSjKEsYaF+ZbwCO5+OFM9jPXwzCMwVN0RJHagUYBk0="
	spkiX25519  = "MCowBQYDK2VuAyEAJJazD8AWgRa/kVVKodTKfCnom+tgr9aa1xY2NT/37hk="
	rsaBody     = "MIIBCgKCAQEAlXg5r/1I2H2wePBmedAT0XLie5XCpxzMDrgJwbo7YqDOZabnaeNyRbVmhp3txdfbVEAIhsSJOu8U8rusyqtPCcqR6xjko35M" +
		"AonpZvCpvGGhltDiO1ZEnANI6wXv7p/LKGZ0qruQjfRzE2OT9bqly3BSvAfsw525M5aQ4rS21OSxNOz8+//wMFZfgDedxOefc5dVMacYyjk94cjqJps" +
		"i1ptYtGG1KoanUbaOq7sez4U4r+d3Paw7GU/2E5Z3D+qPmO5UCKQDKB/ne7B51eVg/JJgPMtay3rRmRCIdwL4oQpzdiSrXQxsL/PQ0BmC2ihNuHXibv" +
		"juYtcqpUSdX3c06QIDAQAB"
	spkiRSA = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" + rsaBody
	sshP256 = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAd0DBnP5sMqTKpRu/fRj4bMVwnatQ7Z7Pi8j98B" +
		"tw1h7ZqutVPgqkILNipiv9I75AXn5ITjBAXAagrVNFsh9ro="
	sshRSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCVeDmv/UjYfbB48GZ50BPRcuJ7lcKnHMwOuAnBujtioM5lpudp43JFtWaGne3F19tUQAiGxIk67xTy" +
		"u6zKq08JypHrGOSjfkwCielm8Km8YaGW0OI7VkScA0jrBe/un8soZnSqu5CN9HMTY5P1uqXLcFK8B+zDnbkzlpDitLbU5LE07Pz7//AwVl+AN53E559zl1" +
		"UxpxjKOT3hyOommyLWm1i0YbUqhqdRto6rux7PhTiv53c9rDsZT/YTlncP6o+Y7lQIpAMoH+d7sHnV5WD8kmA8y1rLetGZEIh3AvihCnN2JKtdDGwv89DQ" +
		"GYLaKE24deJu+O5i1yqlRJ1fdzTp"
)

func knownKeys() []known {
	return []known{
		{"P-256", spkiP256, sshP256, &ecdsa.PublicKey{}},
		{"P-384", spkiP384, "", &ecdsa.PublicKey{}},
		{"P-521", spkiP521, "", &ecdsa.PublicKey{}},
		{"secp256k1", spkiSecp256k1, "", &ecdsa.PublicKey{}},
		{"Ed25519", spkiEd25519, "", ed25519.PublicKey{}},
		{"X25519", spkiX25519, "", &ecdh.PublicKey{}},
		{"RSA", spkiRSA, sshRSA, &rsa.PublicKey{}},
	}
}

func mustBase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustSPKI(t testing.TB, s string) crypto.PublicKey {
	t.Helper()
	pub, err := pubkey.ParseSPKI(mustBase64(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func same(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

func wantCode(t *testing.T, what string, err error, code holdfast.Code) {
	t.Helper()
	var typed *holdfast.Error
	if !errors.As(err, &typed) || !errors.Is(err, code) {
		t.Errorf("%s: error %v, want %v", what, err, code)
	}
}

func TestEveryKeyInEveryEncoding(t *testing.T) {
	for _, k := range knownKeys() {
		t.Run(k.name, func(t *testing.T) {
			der := mustBase64(t, k.spki)
			pub := mustSPKI(t, k.spki)
			if again, err := pubkey.MarshalSPKI(pub); err != nil || !bytes.Equal(again, der) {
				t.Errorf("MarshalSPKI differs from OpenSSL: %v", err)
			}
			checkPEM(t, pub)
			checkMultikey(t, pub)
			checkJWK(t, pub)
			if k.ssh != "" {
				line, err := pubkey.MarshalSSH(pub, "")
				if err != nil || string(line) != k.ssh+"\n" {
					t.Errorf("MarshalSSH differs from OpenSSH: %s, %v", line, err)
				}
			}
		})
	}
}

func checkPEM(t *testing.T, pub crypto.PublicKey) {
	t.Helper()
	text, err := pubkey.MarshalPEM(pub)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := pubkey.ParsePEM(text); err != nil || !same(pub, back) {
		t.Errorf("PEM does not come back: %v", err)
	}
}

func checkMultikey(t *testing.T, pub crypto.PublicKey) {
	t.Helper()
	text, err := pubkey.MarshalMultikey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := pubkey.ParseMultikey(text); err != nil || !same(pub, back) {
		t.Errorf("multikey %s does not come back: %v", text, err)
	}
	raw, err := base58.Decode(text[1:])
	if err != nil {
		t.Fatal(err)
	}
	inBase64 := "u" + base64.RawURLEncoding.EncodeToString(raw)
	if back, err := pubkey.ParseMultikey(inBase64); err != nil || !same(pub, back) {
		t.Errorf("multikey %s does not come back: %v", inBase64, err)
	}
}

func checkJWK(t *testing.T, pub crypto.PublicKey) {
	t.Helper()
	text, err := pubkey.JWK{Public: pub}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := pubkey.ParseJWK(text)
	if err != nil || !same(pub, back.Public) {
		t.Errorf("JWK %s does not come back: %v", text, err)
	}
}

// The multikeys of W3C's and did:key's examples.
func TestMultikeyPublished(t *testing.T) {
	for multikey, jwk := range map[string]string{
		"z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp": `{"crv":"Ed25519","kty":"OKP","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"}`,
		"zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169": `{"crv":"P-256","kty":"EC","x":"fyNYMN0976ci7xqiSdag3buk-ZCwgXU4kz9XNkBlNUI",` +
			`"y":"hW2ojTNfH7Jbi8--CJUo3OCbH3y5n91g-IMA9MLMbTU"}`,
		"zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme": `{"crv":"secp256k1","kty":"EC","x":"h0wVx_2iDlOcblulc8E5iEw1EYh5n1RYtLQfeSTyNc0",` +
			`"y":"O2EATIGbu6DezKFptj5scAIRntgfecanVNXxat1rnwE"}`,
	} {
		pub, err := pubkey.ParseMultikey(multikey)
		if err != nil {
			t.Errorf("%s: %v", multikey, err)
			continue
		}
		if text, err := (pubkey.JWK{Public: pub}).Marshal(); err != nil || string(text) != jwk {
			t.Errorf("%s is %s, %v; want %s", multikey, text, err, jwk)
		}
		if again, err := pubkey.MarshalMultikey(pub); err != nil || again != multikey {
			t.Errorf("%s becomes %s, %v", multikey, again, err)
		}
	}
}

func TestThumbprintPublished(t *testing.T) {
	// RFC 7638, section 3.1, and RFC 8037, appendix A.3.
	const rfc7638 = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPeb` +
		`WKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9` +
		`c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFC` +
		`ur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`
	for jwk, want := range map[string]string{
		rfc7638: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
	} {
		key, err := pubkey.ParseJWK([]byte(jwk))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pubkey.Thumbprint(key.Public); err != nil || got != want {
			t.Errorf("Thumbprint = %s, %v; want %s", got, err, want)
		}
	}
}

func TestECDHKeysOnNISTCurves(t *testing.T) {
	signing := mustSPKI(t, spkiP384).(*ecdsa.PublicKey)
	agreeing, err := signing.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	for name, marshal := range map[string]func(crypto.PublicKey) ([]byte, error){
		"SPKI":     pubkey.MarshalSPKI,
		"multikey": func(k crypto.PublicKey) ([]byte, error) { s, err := pubkey.MarshalMultikey(k); return []byte(s), err },
		"JWK":      func(k crypto.PublicKey) ([]byte, error) { return pubkey.JWK{Public: k}.Marshal() },
	} {
		a, errA := marshal(signing)
		b, errB := marshal(agreeing)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: one point has two encodings: %s, %s, %v, %v", name, a, b, errA, errB)
		}
	}
	text, err := pubkey.JWK{Public: agreeing, Use: "enc", Algorithm: "ECDH-ES+A256KW", KeyID: "a<b"}.Marshal()
	if err != nil || !strings.Contains(string(text), `"kid":"a<b"`) {
		t.Fatalf("%s, %v", text, err)
	}
	back, err := pubkey.ParseJWK(text)
	if err != nil || !same(agreeing, back.Public) || back.KeyID != "a<b" || back.Use != "enc" {
		t.Errorf("%s comes back as %+v, %v", text, back, err)
	}
	_, err = pubkey.MarshalSSH(agreeing, "")
	wantCode(t, "SSH", err, holdfast.ErrUnsupported)
}

func TestMarshalRefusesOtherKeys(t *testing.T) {
	p224 := &ecdsa.PublicKey{Curve: elliptic.P224(), X: big.NewInt(1), Y: big.NewInt(1)}
	notOnCurve := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	notOnSecp := &ecdsa.PublicKey{Curve: secp256k1.S256(), X: big.NewInt(1), Y: big.NewInt(1)}
	negative := &ecdsa.PublicKey{Curve: secp256k1.S256(), X: big.NewInt(-1), Y: big.NewInt(1)}
	short := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	even := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(0), 2047, 1), E: 65537}
	for name, c := range map[string]struct {
		pub  crypto.PublicKey
		code holdfast.Code
	}{
		"nil":                {nil, holdfast.ErrInvalid},
		"nil ecdsa":          {(*ecdsa.PublicKey)(nil), holdfast.ErrInvalid},
		"nil rsa":            {(*rsa.PublicKey)(nil), holdfast.ErrInvalid},
		"nil ecdh":           {(*ecdh.PublicKey)(nil), holdfast.ErrInvalid},
		"empty ecdsa":        {&ecdsa.PublicKey{}, holdfast.ErrInvalid},
		"secp256k1 no point": {&ecdsa.PublicKey{Curve: secp256k1.S256()}, holdfast.ErrInvalid},
		"not on P-256":       {notOnCurve, holdfast.ErrInvalid},
		"not on secp256k1":   {notOnSecp, holdfast.ErrInvalid},
		"negative":           {negative, holdfast.ErrInvalid},
		"P-224":              {p224, holdfast.ErrUnsupported},
		"short Ed25519":      {ed25519.PublicKey{1}, holdfast.ErrInvalid},
		"RSA-1024":           {short, holdfast.ErrUnsupported},
		"even RSA":           {even, holdfast.ErrInvalid},
		"another type":       {"key", holdfast.ErrUnsupported},
	} {
		_, err := pubkey.MarshalSPKI(c.pub)
		wantCode(t, name+" SPKI", err, c.code)
		_, err = pubkey.MarshalMultikey(c.pub)
		wantCode(t, name+" multikey", err, c.code)
		_, err = pubkey.JWK{Public: c.pub}.Marshal()
		wantCode(t, name+" JWK", err, c.code)
		_, err = pubkey.Thumbprint(c.pub)
		wantCode(t, name+" thumbprint", err, c.code)
		_, err = pubkey.MarshalSSH(c.pub, "")
		wantCode(t, name+" SSH", err, c.code)
	}
}

func TestX25519FromEd25519(t *testing.T) {
	// The pairs of did:key's vectors, seeds 00…00 and 00…01.
	for signing, agreeing := range map[string]string{
		"z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp": "z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW",
		"z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG": "z6LSrHyXiPBhUbvPUtyUCdf32sniiMGPTAesgHrtEa4FePtr",
	} {
		pub, err := pubkey.ParseMultikey(signing)
		if err != nil {
			t.Fatal(err)
		}
		derived, err := pubkey.X25519FromEd25519(pub.(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pubkey.MarshalMultikey(derived); err != nil || got != agreeing {
			t.Errorf("derived %s from %s, want %s (%v)", got, signing, agreeing, err)
		}
	}
	for name, text := range map[string]string{
		"neutral element": "0100000000000000000000000000000000000000000000000000000000000000",
		"order two":       "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"order four":      "0000000000000000000000000000000000000000000000000000000000000000",
		"order eight":     "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"y is p":          "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"y is p+1":        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"not on curve":    "0200000000000000000000000000000000000000000000000000000000000000",
		"short":           "02",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pubkey.X25519FromEd25519(raw)
		wantCode(t, name, err, holdfast.ErrInvalid)
	}
}
