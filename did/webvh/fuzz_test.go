package webvh_test

import (
	"testing"
	"time"

	"holdfast/did"
	"holdfast/did/webvh"
)

// FuzzVerify: whatever the bytes, verification ends without panic; what verifies resolves at each of its versions or says
// that the document is none, and does not verify for another DID.
func FuzzVerify(f *testing.F) {
	created, err := webvh.Create(f.Context(), webvh.CreateRequest{
		Domain: "dids.example.com", UpdateKey: testKey(f, 1), Document: []byte(template), VersionTime: born(),
		Witness: webvh.Witness{Threshold: 1, Witnesses: []string{"did:key:" + testKey(f, 2).Multikey}},
	})
	if err != nil {
		f.Fatal(err)
	}
	next, err := webvh.Next(f.Context(), created.Log, webvh.NextRequest{UpdateKey: testKey(f, 1), VersionTime: born().Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	proof, err := webvh.Approve(f.Context(), next.VersionID, born(), testKey(f, 2))
	if err != nil {
		f.Fatal(err)
	}
	log := string(created.Entry) + "\n" + string(next.Entry) + "\n"
	f.Add([]byte(log), []byte(`[{"versionId":"`+next.VersionID+`","proof":[`+string(proof)+`]}]`))
	f.Add([]byte(created.Entry), []byte(`[]`))
	f.Add([]byte("{}\n[]\n"), []byte(``))
	f.Fuzz(func(t *testing.T, text, witness []byte) {
		verified, err := webvh.Verify(t.Context(), created.DID, text, &webvh.VerifyOptions{Now: born().Add(24 * time.Hour)})
		if err != nil {
			return
		}
		if _, err := webvh.Verify(t.Context(), "did:webvh:"+scid+":dids.example.com", text, nil); err == nil {
			t.Fatal("the log verifies for another SCID")
		}
		for _, v := range verified.Versions() {
			_, err := verified.Resolve(&did.ResolveOptions{VersionID: v.ID})
			if p := did.ProblemOf(err); p != nil && p.Type != did.InvalidDIDDocument {
				t.Fatalf("version %s: %v", v.ID, err)
			}
		}
		if checked, err := verified.CheckWitness(witness, webvh.Limits{}); err == nil && len(checked.Versions()) > len(verified.Versions()) {
			t.Fatal("witnesses add versions")
		}
	})
}
