package pubkey_test

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"

	"holdfast/internal/pubkey"
	"holdfast/internal/vectors"
)

// The multicodec table is where the codes come from.
func TestMulticodecTable(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	reader := csv.NewReader(strings.NewReader(string(vectors.Read(t, dir, "multiformats/multicodec-table.csv"))))
	reader.TrimLeadingSpace, reader.FieldsPerRecord, reader.LazyQuotes = true, -1, true
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]string{}
	for _, row := range rows {
		codes[strings.TrimSpace(row[0])] = strings.TrimSpace(row[2])
	}
	for name, want := range map[string]string{
		"ed25519-pub": "0xed", "x25519-pub": "0xec", "secp256k1-pub": "0xe7", "p256-pub": "0x1200", "p384-pub": "0x1201",
		"p521-pub": "0x1202", "rsa-pub": "0x1205",
	} {
		if codes[name] != want {
			t.Errorf("%s is %s in the table", name, codes[name])
		}
	}
}

// Every key of did:key's vectors: the multikey and the JWK are the same key.
func TestDIDKeyVectors(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	var set map[string]struct {
		VerificationMethod struct {
			PublicKeyJWK json.RawMessage `json:"publicKeyJwk"`
		} `json:"verificationMethod"`
	}
	if err := json.Unmarshal(vectors.Read(t, dir, "did-key/nist-curves.json"), &set); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for did, vector := range set {
		pub, err := pubkey.ParseMultikey(strings.TrimPrefix(did, "did:key:"))
		if err != nil {
			t.Errorf("%s: %v", did, err)
			continue
		}
		if vector.VerificationMethod.PublicKeyJWK == nil {
			continue
		}
		key, err := pubkey.ParseJWK(vector.VerificationMethod.PublicKeyJWK)
		if err != nil || !same(key.Public, pub) {
			t.Errorf("%s: JWK and multikey differ: %v", did, err)
		}
		compared++
	}
	if compared < 6 {
		t.Errorf("only %d keys compared", compared)
	}
}
