package pubkey_test

import (
	"bytes"
	"testing"

	"holdfast"
	"holdfast/internal/pubkey"

	"golang.org/x/crypto/ssh"
)

// The targets of parsers state the same property: what a parser accepts is exactly what marshalling its result gives, or
// for JWK, which has room for more than the key, a form that parses to itself.

func FuzzParseSPKI(f *testing.F) {
	for _, k := range knownKeys() {
		f.Add(mustBase64(f, k.spki))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		pub, err := pubkey.ParseSPKI(der)
		if err != nil {
			return
		}
		if again, err := pubkey.MarshalSPKI(pub); err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x becomes %x, %v", der, again, err)
		}
	})
}

func FuzzParsePEM(f *testing.F) {
	for _, k := range knownKeys() {
		text, err := pubkey.MarshalPEM(mustSPKI(f, k.spki))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		pub, err := pubkey.ParsePEM(text)
		if err != nil {
			return
		}
		again, err := pubkey.MarshalPEM(pub)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := pubkey.ParsePEM(again); err != nil || !same(pub, back) {
			t.Fatalf("%q becomes %q, %v", text, again, err)
		}
	})
}

func FuzzParseMultikey(f *testing.F) {
	for _, k := range knownKeys() {
		text, err := pubkey.MarshalMultikey(mustSPKI(f, k.spki))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add("u7QE7aie8zraktYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")
	f.Fuzz(func(t *testing.T, text string) {
		pub, err := pubkey.ParseMultikey(text)
		if err != nil {
			return
		}
		again, err := pubkey.MarshalMultikey(pub)
		if err != nil || text[0] == 'z' && again != text {
			t.Fatalf("%q becomes %q, %v", text, again, err)
		}
		if back, err := pubkey.ParseMultikey(again); err != nil || !same(pub, back) {
			t.Fatalf("%q does not come back: %v", again, err)
		}
	})
}

func FuzzParseJWK(f *testing.F) {
	for _, k := range knownKeys() {
		text, err := pubkey.JWK{Public: mustSPKI(f, k.spki), KeyID: "1"}.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := pubkey.ParseJWK(text)
		if err != nil {
			return
		}
		again, err := key.Marshal()
		if err != nil {
			t.Fatalf("%q parses to %+v, which has no form: %v", text, key, err)
		}
		back, err := pubkey.ParseJWK(again)
		if err != nil || !same(key.Public, back.Public) || key.KeyID != back.KeyID {
			t.Fatalf("%q becomes %q, %v", text, again, err)
		}
	})
}

// FuzzMarshalSSH checks that no comment, which is a key's name, makes a line that SSH reads as more than one key.
func FuzzMarshalSSH(f *testing.F) {
	f.Add("ada at example")
	f.Add("a\nssh-rsa AAAA")
	f.Fuzz(func(t *testing.T, comment string) {
		want := mustSPKI(t, spkiP256)
		line, err := pubkey.MarshalSSH(want, comment)
		if err != nil {
			return
		}
		pub, read, options, rest, err := ssh.ParseAuthorizedKey(line)
		if err != nil || read != comment || len(options)+len(rest) > 0 {
			t.Fatalf("%q is read with the comment %q, options %q and %q behind it, %v", line, read, options, rest, err)
		}
		if !same(pub.(ssh.CryptoPublicKey).CryptoPublicKey(), want) {
			t.Fatalf("%q is read as another key", line)
		}
	})
}

func FuzzRawSignature(f *testing.F) {
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.ES512, holdfast.ES256K} {
			raw, err := pubkey.RawSignature(a, der)
			if err != nil {
				continue
			}
			if back, err := pubkey.DERSignature(a, raw); err != nil || !bytes.Equal(back, der) {
				t.Fatalf("%s %x becomes %x and %x, %v", a, der, raw, back, err)
			}
		}
	})
}
