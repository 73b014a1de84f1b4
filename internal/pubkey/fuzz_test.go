package pubkey_test

import (
	"bytes"
	"testing"

	"holdfast"
	"holdfast/internal/pubkey"
)

// Each target states the same property: what a parser accepts is exactly what marshalling its result gives, or for JWK
// and SSH, which have room for more than the key, a form that parses to itself.

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

func FuzzParseSSH(f *testing.F) {
	f.Add([]byte(sshP256 + " comment"))
	f.Add([]byte(sshRSA))
	f.Fuzz(func(t *testing.T, line []byte) {
		pub, _, err := pubkey.ParseSSH(line)
		if err != nil {
			return
		}
		again, err := pubkey.MarshalSSH(pub, "")
		if err != nil {
			t.Fatal(err)
		}
		if back, _, err := pubkey.ParseSSH(again); err != nil || !same(pub, back) {
			t.Fatalf("%q becomes %q, %v", line, again, err)
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
