package webvh

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// longLog makes a log of n entries, each with a document of some 1.5 KB.
func longLog(b *testing.B, n int) (string, []byte) {
	b.Helper()
	key := seedKey(b, strings.Repeat("00", 31)+"01")
	method := `{"id":"{DID}#key-N","type":"Multikey","controller":"{DID}","publicKeyMultibase":"zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"}`
	document := strings.ReplaceAll(`{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1"],"id":"{DID}",`+
		`"verificationMethod":[`+strings.Join([]string{method, strings.Replace(method, "N", "2", 1), strings.Replace(method, "N", "3", 1)}, ",")+
		`],"authentication":["{DID}#key-N"],"assertionMethod":["{DID}#key-2"],"keyAgreement":["{DID}#key-3"]}`, "key-N", "key-1")
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	created, err := Create(b.Context(), CreateRequest{
		Domain: "dids.example.com", UpdateKey: key, Document: []byte(document), VersionTime: at,
	})
	if err != nil {
		b.Fatal(err)
	}
	out := append(bytes.Clone(created.Entry), '\n')
	last := created.Log
	for range n - 1 {
		at = at.Add(time.Second)
		e, err := newEntry([]byte("{}"), last.Latest().State, at)
		if err != nil {
			b.Fatal(err)
		}
		next, err := e.finish(b.Context(), last, last.Latest().ID, key)
		if err != nil {
			b.Fatal(err)
		}
		last = next.Log
		out = append(append(out, next.Entry...), '\n')
	}
	return created.DID, out
}

// BenchmarkVerify10000 is a cold resolution without the network: goal 1.5 s on two processors.
func BenchmarkVerify10000(b *testing.B) {
	did, text := longLog(b, 10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		log, err := Verify(b.Context(), did, text, nil)
		if err != nil || log.Problem() != nil || len(log.versions) != 10_000 {
			b.Fatal(err, log.Problem())
		}
	}
}
