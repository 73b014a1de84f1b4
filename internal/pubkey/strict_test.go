package pubkey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"holdfast"
	"holdfast/internal/pubkey"

	"github.com/mr-tron/base58"
	"golang.org/x/crypto/ssh"
)

func TestSPKIRefused(t *testing.T) {
	p256 := mustBase64(t, spkiP256)
	offCurve := append([]byte{}, p256...)
	offCurve[len(offCurve)-1] ^= 1
	for name, c := range map[string]struct {
		der  []byte
		code holdfast.Code
	}{
		"empty":     {nil, holdfast.ErrInvalid},
		"trailing":  {append(mustBase64(t, spkiP256), 0), holdfast.ErrInvalid},
		"truncated": {p256[:len(p256)-1], holdfast.ErrInvalid},
		"off curve": {offCurve, holdfast.ErrInvalid},
		"huge":      {make([]byte, 1<<20), holdfast.ErrInvalid},
		// Written by OpenSSL: a compressed point, Ed448, brainpoolP256r1.
		"compressed": {mustBase64(t, "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgACBXcnetqMzaL3tNKnnyGRXiMJwRkRzBHSZ5FWsjq4rck="), holdfast.ErrInvalid},
		"Ed448": {mustBase64(t, "MEMwBQYDK2VxAzoADh7szQaOiZaQHY1y/wVpR0huL0KXjPbou8/3AHdEadZi9JbE2G3VMB7w5o/klPLfhrSZgSp2mtoA"),
			holdfast.ErrUnsupported},
		"brainpool": {mustBase64(t, "MFowFAYHKoZIzj0CAQYJKyQDAwIIAQEHA0IABBSaHqtcy61TnEcKWWfblJ6we+ppQnGB+2T/oC7HmMkBGngA/9b6Q1YkVHvEUSBYwscUpQRb8P5sKlm+z9bUb7w="),
			holdfast.ErrUnsupported},
	} {
		_, err := pubkey.ParseSPKI(c.der)
		wantCode(t, name, err, c.code)
	}
}

// A SubjectPublicKeyInfo has many spellings in BER; crypto/x509 takes some of them for keys of secp256k1's kind.
func TestSPKIHasOneForm(t *testing.T) {
	der := mustBase64(t, spkiSecp256k1)
	longLength := append([]byte{0x30, 0x81, der[1]}, der[2:]...)
	_, err := pubkey.ParseSPKI(longLength)
	wantCode(t, "long form of a short length", err, holdfast.ErrInvalid)

	hybrid := append([]byte{}, der...)
	hybrid[len(hybrid)-65] = 6 | hybrid[len(hybrid)-1]&1
	_, err = pubkey.ParseSPKI(hybrid)
	wantCode(t, "hybrid point", err, holdfast.ErrInvalid)
}

func TestPEMRefused(t *testing.T) {
	good, err := pubkey.MarshalPEM(mustSPKI(t, spkiEd25519))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pubkey.ParsePEM([]byte("\r\n" + strings.ReplaceAll(string(good), "\n", "\r\n"))); err != nil {
		t.Errorf("line ends of another system: %v", err)
	}
	withHeader := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Headers: map[string]string{"a": "b"}, Bytes: mustBase64(t, spkiEd25519)})
	for name, text := range map[string]string{
		"empty":         "",
		"text before":   "hello\n" + string(good),
		"text after":    string(good) + "hello",
		"two keys":      string(good) + string(good),
		"private key":   strings.ReplaceAll(string(good), "PUBLIC", "PRIVATE"),
		"RSA's own":     strings.ReplaceAll(string(good), "PUBLIC", "RSA PUBLIC"),
		"headers":       string(withHeader),
		"no end":        string(good[:len(good)-10]),
		"not base64":    strings.Replace(string(good), "MCow", "!!!!", 1),
		"not DER":       string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})),
		"far too long":  string(good) + strings.Repeat(" ", 1<<20),
		"empty of body": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
	} {
		_, err := pubkey.ParsePEM([]byte(text))
		wantCode(t, name, err, holdfast.ErrInvalid)
	}
}

func multikeyOf(raw string) string {
	b, err := hex.DecodeString(raw)
	if err != nil {
		panic(err)
	}
	return "z" + base58.Encode(b)
}

func TestMultikeyRefused(t *testing.T) {
	const ed = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
	for name, c := range map[string]struct {
		text string
		code holdfast.Code
	}{
		"empty":                    {"", holdfast.ErrInvalid},
		"base only":                {"z", holdfast.ErrInvalid},
		"base32":                   {"bnbswy3dp", holdfast.ErrInvalid},
		"not base58":               {"z6Mk0OIl", holdfast.ErrInvalid},
		"space":                    {" z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", holdfast.ErrInvalid},
		"short Ed25519":            {multikeyOf("ed01" + ed[2:]), holdfast.ErrInvalid},
		"long Ed25519":             {multikeyOf("ed01" + ed + "00"), holdfast.ErrInvalid},
		"fixed-width code":         {multikeyOf("00ed" + ed), holdfast.ErrUnsupported},
		"P-256 as plain 1200":      {multikeyOf("1200" + "02" + ed), holdfast.ErrUnsupported},
		"varint not minimal":       {multikeyOf("ed8100" + ed), holdfast.ErrInvalid},
		"varint without end":       {multikeyOf("ffffffffffffffffffffffff"), holdfast.ErrInvalid},
		"private key code":         {multikeyOf("8026" + ed), holdfast.ErrUnsupported},
		"P-256 uncompressed":       {multikeyOf("8024" + "04" + ed + ed), holdfast.ErrInvalid},
		"P-256 not on curve":       {multikeyOf("8024" + "02" + strings.Repeat("ff", 32)), holdfast.ErrInvalid},
		"secp256k1 not on curve":   {multikeyOf("e701" + "02" + strings.Repeat("ff", 32)), holdfast.ErrInvalid},
		"secp256k1 sign byte":      {multikeyOf("e701" + "05" + ed), holdfast.ErrInvalid},
		"RSA not DER":              {multikeyOf("8524" + ed), holdfast.ErrInvalid},
		"base64url with padding":   {"u7QE7aie8zraktYqOo0CpvDXNlMhV3HeJDpjrASKGLWdopKQ==", holdfast.ErrInvalid},
		"base64url with line feed": {"u7QE7aie8zraktYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop\n", holdfast.ErrInvalid},
		"huge":                     {"z" + strings.Repeat("1", 1<<20), holdfast.ErrInvalid},
		"not ASCII":                {"z6Mkié", holdfast.ErrInvalid},
	} {
		_, err := pubkey.ParseMultikey(c.text)
		wantCode(t, name, err, c.code)
	}
}

func TestJWKRefused(t *testing.T) {
	const (
		x = `"x":"fyNYMN0976ci7xqiSdag3buk-ZCwgXU4kz9XNkBlNUI"`
		y = `"y":"hW2ojTNfH7Jbi8--CJUo3OCbH3y5n91g-IMA9MLMbTU"`
		p = `{"kty":"EC","crv":"P-256",` + x + `,` + y
		e = `{"kty":"OKP","crv":"Ed25519","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"`
	)
	for _, good := range []string{
		p + `}`, e + `}`, p + `,"alg":"ES256","use":"sig","kid":"1"}`, p + `,"x5t":"whatever","D":"not d","oth2":[]}`,
		p + `,"use":"enc"}`, p + `,"alg":"ECDH-ES"}`, p + `,"alg":"X-OWN"}`, e + `,"alg":"Ed25519"}`,
	} {
		if _, err := pubkey.ParseJWK([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for name, c := range map[string]struct {
		text string
		code holdfast.Code
	}{
		"empty":               {``, holdfast.ErrInvalid},
		"array":               {`[]`, holdfast.ErrInvalid},
		"no kty":              {`{}`, holdfast.ErrUnsupported},
		"private d":           {e + `,"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`, holdfast.ErrInvalid},
		"private even if odd": {p + `,"qi":null}`, holdfast.ErrInvalid},
		"symmetric":           {`{"kty":"oct","k":"AAAA"}`, holdfast.ErrInvalid},
		"symmetric type":      {`{"kty":"oct"}`, holdfast.ErrUnsupported},
		"duplicate":           {p + `,` + x + `}`, holdfast.ErrInvalid},
		"duplicate escaped":   {p + `,"\u0078":"AA"}`, holdfast.ErrInvalid},
		"kty upper case":      {`{"KTY":"EC","crv":"P-256",` + x + `,` + y + `}`, holdfast.ErrUnsupported},
		"kty a number":        {`{"kty":1}`, holdfast.ErrInvalid},
		"x null":              {`{"kty":"EC","crv":"P-256","x":null,` + y + `}`, holdfast.ErrInvalid},
		"padding":             {`{"kty":"OKP","crv":"Ed25519","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="}`, holdfast.ErrInvalid},
		"loose bits":          {`{"kty":"OKP","crv":"Ed25519","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2il"}`, holdfast.ErrInvalid},
		"line feed":           {`{"kty":"OKP","crv":"Ed25519","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik\n"}`, holdfast.ErrInvalid},
		"standard alphabet":   {`{"kty":"EC","crv":"P-256",` + strings.ReplaceAll(x, "-", "+") + `,` + y + `}`, holdfast.ErrInvalid},
		"short coordinate":    {`{"kty":"EC","crv":"P-256","x":"AA",` + y + `}`, holdfast.ErrInvalid},
		"off curve":           {`{"kty":"EC","crv":"P-256",` + x + `,` + strings.Replace(x, "x", "y", 1) + `}`, holdfast.ErrInvalid},
		"P-224":               {`{"kty":"EC","crv":"P-224",` + x + `,` + y + `}`, holdfast.ErrUnsupported},
		"Ed448":               {`{"kty":"OKP","crv":"Ed448","x":"AA"}`, holdfast.ErrUnsupported},
		"OKP with y":          {e + `,` + y + `}`, holdfast.ErrInvalid},
		"RSA leading zero":    {`{"kty":"RSA","n":"AMV4","e":"AQAB"}`, holdfast.ErrInvalid},
		"RSA short":           {`{"kty":"RSA","n":"xXg5","e":"AQAB"}`, holdfast.ErrUnsupported},
		"RSA huge e":          {`{"kty":"RSA","n":"xXg5","e":"AQABAQABAQAB"}`, holdfast.ErrUnsupported},
		"alg of other curve":  {p + `,"alg":"ES384"}`, holdfast.ErrInvalid},
		"alg none":            {p + `,"alg":"none"}`, holdfast.ErrInvalid},
		"alg HMAC":            {p + `,"alg":"HS256"}`, holdfast.ErrInvalid},
		"alg RSA":             {p + `,"alg":"RSA-OAEP"}`, holdfast.ErrInvalid},
		"alg EdDSA":           {p + `,"alg":"EdDSA"}`, holdfast.ErrInvalid},
		"use sig to agree":    {p + `,"use":"sig","alg":"ECDH-ES"}`, holdfast.ErrInvalid},
		"use enc of Ed25519":  {e + `,"use":"enc"}`, holdfast.ErrInvalid},
		"use unknown":         {p + `,"use":"both"}`, holdfast.ErrInvalid},
		"huge":                {p + `,"a":"` + strings.Repeat("a", 1<<20) + `"}`, holdfast.ErrInvalid},
		"deep":                {p + `,"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, holdfast.ErrInvalid},
	} {
		_, err := pubkey.ParseJWK([]byte(c.text))
		wantCode(t, name, err, c.code)
	}
}

func TestSSH(t *testing.T) {
	line, err := pubkey.MarshalSSH(mustSPKI(t, spkiP256), "ada at example")
	if err != nil || string(line) != sshP256+" ada at example\n" {
		t.Fatalf("%q, %v", line, err)
	}
	pub, comment, _, rest, err := ssh.ParseAuthorizedKey(line)
	if err != nil || comment != "ada at example" || len(rest) > 0 {
		t.Fatalf("as SSH reads it: %q, %q, %v", comment, rest, err)
	}
	if !same(pub.(ssh.CryptoPublicKey).CryptoPublicKey(), mustSPKI(t, spkiP256)) {
		t.Error("SSH reads another key")
	}
	for _, comment := range []string{"a\nssh-rsa AAAA", "a\x00", " a", "a\r"} {
		_, err := pubkey.MarshalSSH(mustSPKI(t, spkiP256), comment)
		wantCode(t, fmt.Sprintf("comment %q", comment), err, holdfast.ErrInvalid)
	}
	for name, pub := range map[string]string{"secp256k1": spkiSecp256k1, "X25519": spkiX25519} {
		_, err := pubkey.MarshalSSH(mustSPKI(t, pub), "")
		wantCode(t, name, err, holdfast.ErrUnsupported)
	}
}

func TestSignatures(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	for range 50 {
		der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pubkey.RawSignature(holdfast.ES256, der)
		if err != nil || len(raw) != 64 {
			t.Fatalf("RawSignature: %d bytes, %v", len(raw), err)
		}
		back, err := pubkey.DERSignature(holdfast.ES256, raw)
		if err != nil || string(back) != string(der) {
			t.Fatalf("DERSignature(%x) = %x, %v; want %x", raw, back, err, der)
		}
	}
	for _, a := range []holdfast.Algorithm{holdfast.EdDSA, holdfast.RS256_2048, holdfast.PS256_4096} {
		raw, err := pubkey.RawSignature(a, []byte("as is"))
		if err != nil || string(raw) != "as is" {
			t.Errorf("%s: %q, %v", a, raw, err)
		}
	}
	for _, a := range []holdfast.Algorithm{holdfast.ECDHP256, holdfast.A256GCM, "what"} {
		_, err := pubkey.RawSignature(a, nil)
		wantCode(t, string(a), err, holdfast.ErrUnsupported)
		_, err = pubkey.DERSignature(a, nil)
		wantCode(t, string(a), err, holdfast.ErrUnsupported)
	}
}

func TestSignaturesRefused(t *testing.T) {
	const order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
	zeros := strings.Repeat("00", 32)
	for name, text := range map[string]string{
		"empty":            "",
		"zero r":           "3006020100020101",
		"zero s":           "3006020101020100",
		"negative r":       "30060201ff020101",
		"r not minimal":    "300702020001020101",
		"length in BER":    "308106020101020101",
		"trailing inside":  "300802010102010105" + "00",
		"trailing outside": "300602010102010100",
		"r is the order":   "3026022100" + order + "020101",
		"third integer":    "3009020101020101020101",
	} {
		der, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pubkey.RawSignature(holdfast.ES256, der)
		wantCode(t, name, err, holdfast.ErrInvalid)
	}
	for name, text := range map[string]string{
		"empty": "", "short": strings.Repeat("01", 63), "long": strings.Repeat("01", 65), "zero": zeros + zeros,
		"order": order + order,
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pubkey.DERSignature(holdfast.ES256, raw)
		wantCode(t, name, err, holdfast.ErrInvalid)
	}
	_, err := pubkey.DERSignature(holdfast.ES512, make([]byte, 131))
	wantCode(t, "ES512", err, holdfast.ErrInvalid)
}

func TestJWKRoundTripOfMetadata(t *testing.T) {
	in := pubkey.JWK{Public: mustSPKI(t, spkiSecp256k1), KeyID: "k\u2028\"", Algorithm: "ES256K", Use: "sig"}
	text, err := in.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out, err := pubkey.ParseJWK(text)
	if err != nil || out.KeyID != in.KeyID || out.Algorithm != in.Algorithm || out.Use != in.Use {
		t.Errorf("%s comes back as %+v, %v", text, out, err)
	}
	_, err = pubkey.JWK{Public: in.Public, Algorithm: "ES256"}.Marshal()
	wantCode(t, "alg of another curve", err, holdfast.ErrInvalid)
	_, err = pubkey.JWK{Public: in.Public, KeyID: "\xff"}.Marshal()
	wantCode(t, "kid not UTF-8", err, holdfast.ErrInvalid)
}
