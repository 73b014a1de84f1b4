package webvh

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"holdfast/internal/vectors"

	"github.com/gowebpki/jcs"
	"github.com/mr-tron/base58"
)

// What the published vectors teach, for when they are elsewhere.

// The specification's example of an entry hash.
func TestRestatedEntryHash(t *testing.T) {
	const example = `{"versionId": "QmdmPkUdYzbr9txmx8gM2rsHPgr5L6m3gHjJGAf4vUFoGE", "versionTime": "2025-04-01T17:39:50Z", "parameters": ` +
		`{"witness": {"threshold": 2, "witnesses": [` +
		`{"id": "did:key:z6Mkkc51mg2vpQzKWAbWQZupeGYhowaBjYkmvcKMTqteqHB4", "weight": 1}, ` +
		`{"id": "did:key:z6MkuDdJdKLCgwZuQuEi9xG6LVgJJ9Tebr74CXPYPSumqgJs", "weight": 1}, ` +
		`{"id": "did:key:z6MkoSWmQyp4fTk4ZQy4KUsss9dFX51XfEUzKKKj1J1JUsrF", "weight": 1}]}, ` +
		`"updateKeys": ["z6MkgzBDcBFV3sk4ypPE5YXMZHmS213A3HpYY2LmcVKV15jr"], ` +
		`"nextKeyHashes": ["QmZreDcjvWEpyRFznQeExWNCsvMLk5i59AcRJJuQC8UodJ"], "method": "did:webvh:0.5", ` +
		`"scid": "QmdmPkUdYzbr9txmx8gM2rsHPgr5L6m3gHjJGAf4vUFoGE"}, "state": {"@context": ["https://www.w3.org/ns/did/v1"], ` +
		`"id": "did:webvh:QmdmPkUdYzbr9txmx8gM2rsHPgr5L6m3gHjJGAf4vUFoGE:domain.example"}}`
	canonical, err := jcs.Transform([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := multihash(canonical), "QmQ6FJ4fk2xheSSQoEjVpTgx9AQPKhJgtR9hn1nr4EeCrZ"; got != want {
		t.Errorf("entry hash %s, want %s", got, want)
	}
}

// The commitment to the key with seed 00…02, and the SCID, entry hash and signature of the suite's smallest log.
func TestRestatedLog(t *testing.T) {
	first, second := testKey(t, 1), testKey(t, 2)
	if got, want := KeyHash(second.Multikey), "Qmf2V5jB2UwPcFL5bvmKed7VvY3CSQ1RXyDdtip7ufpQ3R"; got != want {
		t.Errorf("KeyHash = %s, want %s", got, want)
	}
	parameters := `{"method":"did:webvh:1.0","scid":"{SCID}",` + keysJSON(first) +
		`,"portable":false,"nextKeyHashes":[],"watchers":[],"witness":{},"deactivated":false}`
	state := strings.ReplaceAll(`{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1"],"id":"DID","controller":"DID",`+
		`"verificationMethod":[{"type":"Multikey","publicKeyMultibase":"`+first.Multikey+`","purpose":"authentication","id":"DID#P5RDjVJG"}],`+
		`"authentication":["DID#P5RDjVJG"],"assertionMethod":[],"keyAgreement":[],"capabilityDelegation":[],"capabilityInvocation":[]}`,
		"DID", "did:webvh:{SCID}:example.com")
	e, scid, err := firstEntry([]byte(parameters), []byte(state), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	created, err := e.finish(t.Context(), &Log{}, scid, first)
	if err != nil {
		t.Fatal(err)
	}
	if want := "did:webvh:Qmdxt11AjZewCNXX69bpEDobgjySeZ7eFwjf4tgpF6p2Dg:example.com"; created.DID != want {
		t.Errorf("DID %s, want %s", created.DID, want)
	}
	if want := "1-QmPFhMuZH9gjY2JZgyyrgRuFTywQ4mDhoKGVoGE8uy7hFD"; created.VersionID != want {
		t.Errorf("versionId %s, want %s", created.VersionID, want)
	}
	const proof = "z3gfipj528cwTsP7aSSWMsPzA5uqSUGSN7WNzJQFf1WTvjpHf9Ftjk6StQmqqzjyjQT9xyqTjEsRp2jw4DBjcyqac"
	if !bytes.Contains(created.Entry, []byte(proof)) {
		t.Errorf("entry %s lacks the proofValue %s", created.Entry, proof)
	}
}

// The multihash vectors for SHA-256 with 256 bits, and the multibase ones for base58btc.
func TestMultiformatsVectors(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	compared := 0
	for _, row := range readCSV(t, dir, "multiformats/multihash/test_cases.csv") {
		if row[0] != "sha2-256" || row[1] != "256" {
			continue
		}
		raw, err := hex.DecodeString(row[3])
		if err != nil {
			t.Fatal(err)
		}
		if got, want := multihash([]byte(row[2])), base58.Encode(raw); got != want {
			t.Errorf("multihash of %s is %s, want %s", row[2], got, want)
		}
		compared++
	}
	for file, want := range map[string]string{
		"basic.csv": "yes mani !", "leading_zero.csv": "\x00yes mani !", "two_leading_zeros.csv": "\x00\x00yes mani !",
	} {
		for _, row := range readCSV(t, dir, "multiformats/multibase/"+file) {
			if row[0] != "base58btc" {
				continue
			}
			if got := "z" + base58.Encode([]byte(want)); got != row[1] {
				t.Errorf("base58btc of %q is %s, want %s", want, got, row[1])
			}
			compared++
		}
	}
	if compared < 6 {
		t.Errorf("only %d rows compared", compared)
	}
}

func readCSV(t *testing.T, dir, path string) [][]string {
	t.Helper()
	reader := csv.NewReader(bytes.NewReader(vectors.Read(t, dir, path)))
	reader.TrimLeadingSpace, reader.FieldsPerRecord = true, -1
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
