package webvh

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast"
	"holdfast/did"
)

func witnessJSONOf(threshold int, keys ...Key) string {
	w := Witness{Threshold: threshold}
	for _, k := range keys {
		w.Witnesses = append(w.Witnesses, "did:key:"+k.Multikey)
	}
	text, _ := json.Marshal(w)
	return `"witness":` + string(text)
}

// approval is one element of did-witness.json.
func (f *forger) approval(version int, keys ...Key) string {
	f.t.Helper()
	var head struct{ VersionID string }
	if err := json.Unmarshal(f.lines[version-1], &head); err != nil {
		f.t.Fatal(err)
	}
	return approvalOf(f.t, head.VersionID, f, keys...)
}

func approvalOf(t testing.TB, versionID string, f *forger, keys ...Key) string {
	t.Helper()
	proofs := make([]string, len(keys))
	for i, k := range keys {
		proof, err := Approve(t.Context(), versionID, f.at, k)
		if err != nil {
			t.Fatal(err)
		}
		proofs[i] = string(proof)
	}
	return fmt.Sprintf(`{"versionId":%q,"proof":[%s]}`, versionID, strings.Join(proofs, ","))
}

// witnessed returns how many versions stand with the given approvals; 0 for a log that is refused.
func (f *forger) witnessed(approvals ...string) int {
	f.t.Helper()
	log := f.good("before witnesses")
	checked, err := log.CheckWitness([]byte("["+strings.Join(approvals, ",")+"]"), Limits{})
	if err != nil {
		if problem, ok := errors.AsType[*did.Problem](err); !ok || problem.Type != did.InvalidDID {
			f.t.Errorf("CheckWitness says %v", err)
		}
		return 0
	}
	if stands := len(checked.versions); stands < len(f.lines) && !errors.Is(checked.Problem(), holdfast.ErrInvalid) {
		f.t.Errorf("%d of %d versions stand, and the problem is %v", stands, len(f.lines), checked.Problem())
	}
	return len(checked.versions)
}

func (f *forger) wantWitnessed(what string, want int, approvals ...string) {
	f.t.Helper()
	if got := f.witnessed(approvals...); got != want {
		f.t.Errorf("%s: %d versions stand, want %d", what, got, want)
	}
}

func TestWitnesses(t *testing.T) {
	a, w1, w2, w3, stranger := testKey(t, 1), testKey(t, 11), testKey(t, 12), testKey(t, 13), testKey(t, 14)
	f := newForger(t, ","+keysJSON(a)+","+witnessJSONOf(2, w1, w2, w3), a)
	if !f.good("witnesses").NeedsWitness() {
		t.Error("the log does not ask for witnesses")
	}
	f.wantWitnessed("two of three", 1, f.approval(1, w1, w3))
	f.wantWitnessed("one of three", 0, f.approval(1, w2))
	f.wantWitnessed("none", 0)
	f.wantWitnessed("one twice", 0, f.approval(1, w1, w1), f.approval(1, w1))
	f.wantWitnessed("one and a stranger", 0, f.approval(1, w1, stranger))
	f.wantWitnessed("in two elements", 1, f.approval(1, w1), f.approval(1, w2))

	f.next(`{}`, a)
	f.next(`{}`, a)
	f.wantWitnessed("a later approval covers earlier ones", 3, f.approval(3, w1, w2))
	f.wantWitnessed("approvals of different versions", 2, f.approval(2, w1), f.approval(3, w2))
	f.wantWitnessed("the last one is missing", 2, f.approval(2, w1, w2), f.approval(3, w1))
	f.wantWitnessed("a version that is not in the log", 1, f.approval(1, w1, w2),
		approvalOf(t, "9-"+f.scid, f, w1, w2), approvalOf(t, "3-"+f.scid, f, w1, w2), approvalOf(t, "0-x", f, w1, w2))

	swapped := strings.Replace(f.approval(3, w1, w2), f.previous, f.good("").versions[1].ID, 1)
	f.wantWitnessed("proofs for another version", 0, swapped)
	broken := strings.Replace(f.approval(3, w1), `"proofValue":"z`, `"proofValue":"z1`, 1)
	f.wantWitnessed("a broken proof does no harm", 3, broken, f.approval(3, w2, w3), `{"versionId":"3-x"}`, `{"proof":[]}`)
	renamed := strings.ReplaceAll(f.approval(3, stranger), stranger.Multikey, w1.Multikey)
	f.wantWitnessed("a stranger under another name", 0, renamed, f.approval(3, w2))
}

func TestWitnessesChange(t *testing.T) {
	a, w1, w2 := testKey(t, 1), testKey(t, 11), testKey(t, 12)
	f := newForger(t, ","+keysJSON(a), a)
	f.wantWitnessed("nobody", 1)
	f.next(`{`+witnessJSONOf(1, w1)+`}`, a)
	f.wantWitnessed("the first list counts at once", 1)
	f.wantWitnessed("approved", 2, f.approval(2, w1))
	f.next(`{`+witnessJSONOf(1, w2)+`}`, a)
	f.wantWitnessed("a replacement is approved by the old list", 3, f.approval(3, w1))
	f.wantWitnessed("not by the new one", 2, f.approval(2, w1), f.approval(3, w2))
	f.next(`{}`, a)
	f.wantWitnessed("the new list counts afterwards", 4, f.approval(3, w1), f.approval(4, w2))
	f.wantWitnessed("the old one no longer", 3, f.approval(4, w1))
	f.next(`{"witness":{}}`, a)
	f.wantWitnessed("the end has to be approved", 4, f.approval(3, w1), f.approval(4, w2))
	f.wantWitnessed("and is", 5, f.approval(3, w1), f.approval(5, w2))
	f.next(`{}`, a)
	f.wantWitnessed("then nobody is asked", 6, f.approval(3, w1), f.approval(5, w2))
}

func TestWitnessParameterRefused(t *testing.T) {
	a, w := testKey(t, 1), testKey(t, 11)
	id := "did:key:" + w.Multikey
	const p256 = "did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"
	for name, parameter := range map[string]string{
		"threshold zero":     `{"threshold":0,"witnesses":[{"id":"` + id + `"}]}`,
		"threshold too high": `{"threshold":2,"witnesses":[{"id":"` + id + `"}]}`,
		"threshold a string": `{"threshold":"1","witnesses":[{"id":"` + id + `"}]}`,
		"no threshold":       `{"witnesses":[{"id":"` + id + `"}]}`,
		"no witnesses":       `{"threshold":1}`,
		"empty list":         `{"threshold":1,"witnesses":[]}`,
		"witness twice":      `{"threshold":1,"witnesses":[{"id":"` + id + `"},{"id":"` + id + `"}]}`,
		"a bare multikey":    `{"threshold":1,"witnesses":[{"id":"` + w.Multikey + `"}]}`,
		"a did:web":          `{"threshold":1,"witnesses":[{"id":"did:web:example.com"}]}`,
		"a P-256 key":        `{"threshold":1,"witnesses":[{"id":"` + p256 + `"}]}`,
		"without id":         `{"threshold":1,"witnesses":[{}]}`,
	} {
		f := newForger(t, ","+keysJSON(a)+`,"witness":`+parameter, a)
		f.bad(name)
	}
}

func TestWitnessFilesRefused(t *testing.T) {
	a, w := testKey(t, 1), testKey(t, 11)
	f := newForger(t, ","+keysJSON(a)+","+witnessJSONOf(1, w), a)
	log := f.good("witnessed")
	bogus := strings.Replace(f.approval(1, w), `"proofValue":"z`, `"proofValue":"z1`, 1)
	for name, file := range map[string]string{
		"nothing":          ``,
		"not JSON":         `x`,
		"an object":        f.approval(1, w),
		"proof an object":  `[{"versionId":"` + log.Latest().ID + `","proof":{}}]`,
		"duplicate names":  `[{"versionId":"1","versionId":"1"}]`,
		"an array of them": `[[]]`,
		"too long":         "[" + strings.Repeat(" ", 9<<20) + "]",
		"floods of them":   "[" + strings.Repeat(bogus+",", 1100) + bogus + "]",
	} {
		if _, err := log.CheckWitness([]byte(file), Limits{}); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Approve(t.Context(), "1-x", f.at, Key{Multikey: "zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"}); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a P-256 key approves: %v", err)
	}
}
