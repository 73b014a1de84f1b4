package webvh

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/did/key"

	"github.com/mr-tron/base58"
)

// forger makes log lines that are hashed and signed as they should be, whatever they say.
type forger struct {
	t        testing.TB
	did      string
	scid     string
	previous string
	number   uint64
	at       time.Time
	lines    [][]byte
}

const state = `{"@context":"https://www.w3.org/ns/did/v1","id":"DID"}`

func testKey(t testing.TB, n int) Key {
	t.Helper()
	return seedKey(t, fmt.Sprintf("%064x", n))
}

// newForger starts a log with the given parameters besides method and scid.
func newForger(t testing.TB, parameters string, key Key) *forger {
	t.Helper()
	f := &forger{t: t, at: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
	f.first(`{"method":"did:webvh:1.0","scid":"{SCID}"`+parameters+`}`, strings.Replace(state, "DID", "did:webvh:{SCID}:example.com", 1), key)
	return f
}

func (f *forger) first(parameters, state string, key Key) {
	f.t.Helper()
	e, scid, err := firstEntry([]byte(parameters), []byte(state), f.at)
	if err != nil {
		f.t.Fatal(err)
	}
	f.scid, f.previous, f.did = scid, scid, "did:webvh:"+scid+":example.com"
	f.append(e, key)
}

// next adds an entry with the state as it was.
func (f *forger) next(parameters string, key Key) {
	f.t.Helper()
	f.nextState(parameters, strings.Replace(state, "DID", f.did, 1), key)
}

func (f *forger) nextState(parameters, state string, key Key) {
	f.t.Helper()
	f.at = f.at.Add(time.Minute)
	e, err := newEntry([]byte(parameters), []byte(state), f.at)
	if err != nil {
		f.t.Fatal(err)
	}
	f.append(e, key)
}

func (f *forger) append(e *entry, key Key) {
	f.t.Helper()
	f.number++
	id := strconv.FormatUint(f.number, 10) + "-" + multihash(e.canonical(f.previous))
	proof, err := key.prove(f.t.Context(), e.canonical(id), e.time)
	if err != nil {
		f.t.Fatal(err)
	}
	f.previous = id
	f.lines = append(f.lines, fmt.Appendf(nil, `{"versionId":%q,"versionTime":%q,"parameters":%s,"state":%s,"proof":[%s]}`,
		id, e.versionTime, e.canonicalParameters, e.canonicalState, proof))
}

func (f *forger) log() []byte { return append(bytes.Join(f.lines, []byte("\n")), '\n') }

func (f *forger) verify() (*Log, error) {
	return Verify(f.t.Context(), f.did, f.log(), &VerifyOptions{Now: f.at})
}

// good fails the test unless the whole log verifies.
func (f *forger) good(what string) *Log {
	f.t.Helper()
	log, err := f.verify()
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
	if log.Problem() != nil || len(log.versions) != len(f.lines) {
		f.t.Fatalf("%s: %v after %d versions", what, log.Problem(), len(log.versions))
	}
	return log
}

// bad fails the test unless the log verifies up to, not including, its last entry.
func (f *forger) bad(what string) {
	f.t.Helper()
	log, err := f.verify()
	if len(f.lines) == 1 {
		problem, ok := errors.AsType[*did.Problem](err)
		if !ok || problem.Type != did.InvalidDID {
			f.t.Errorf("%s: Verify says %v", what, err)
		}
		return
	}
	if err != nil {
		f.t.Errorf("%s: %v", what, err)
		return
	}
	if !errors.Is(log.Problem(), holdfast.ErrInvalid) || len(log.versions) != len(f.lines)-1 {
		f.t.Errorf("%s: %d of %d entries verify, %v", what, len(log.versions), len(f.lines), log.Problem())
	}
	if _, err := log.Resolve(nil); !errors.Is(err, holdfast.ErrInvalid) {
		f.t.Errorf("%s: the latest version resolves, %v", what, err)
	}
	if _, err := log.Resolve(&did.ResolveOptions{VersionNumber: uint64(len(log.versions))}); err != nil {
		f.t.Errorf("%s: the last good version does not resolve, %v", what, err)
	}
}

func keysJSON(keys ...Key) string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.Multikey
	}
	text, _ := json.Marshal(list)
	return `"updateKeys":` + string(text)
}

func hashesJSON(keys ...Key) string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = KeyHash(k.Multikey)
	}
	text, _ := json.Marshal(list)
	return `"nextKeyHashes":` + string(text)
}

func TestKeysAndRotation(t *testing.T) {
	a, b, c := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	f := newForger(t, ","+keysJSON(a), a)
	f.good("first entry")
	f.next(`{}`, a)
	f.good("nothing changed")
	f.next(`{`+keysJSON(b)+`}`, a)
	f.good("rotation is signed by the old key")
	f.next(`{`+keysJSON(b, c)+`}`, b)
	f.next(`{}`, c)
	f.good("any key signs")
	f.next(`{}`, a)
	f.bad("a key that was rotated away signs")

	f = newForger(t, ","+keysJSON(a), b)
	f.bad("the first entry is signed by another key")
	f = newForger(t, ","+keysJSON(a), a)
	f.next(`{`+keysJSON(b)+`}`, b)
	f.bad("the new key signs for itself")
	f = newForger(t, `,"updateKeys":[]`, a)
	f.bad("the first entry has no keys")
	f = newForger(t, `,"updateKeys":["`+a.Multikey+`","`+a.Multikey+`"]`, a)
	f.bad("a key stands there twice")
	f = newForger(t, `,"updateKeys":["u7QE7aie8zraktYqOo0CpvDXNlMhV3HeJDpjrASKGLWdo"]`, a)
	f.bad("a key in base64url")
	f = newForger(t, ``, a)
	f.bad("no updateKeys")
	f = newForger(t, ","+keysJSON(a), a)
	f.next(`{"updateKeys":[]}`, a)
	f.good("keys given up")
	f.next(`{}`, a)
	f.bad("signed after keys were given up")
}

func TestPreRotation(t *testing.T) {
	a, b, c, d := testKey(t, 1), testKey(t, 2), testKey(t, 3), testKey(t, 4)
	start := func() *forger {
		f := newForger(t, ","+keysJSON(a)+","+hashesJSON(b, c), a)
		f.good("first entry")
		return f
	}
	f := start()
	f.next(`{`+keysJSON(b)+`,`+hashesJSON(c, d)+`}`, b)
	f.good("rotation to a key that was committed to")
	f.next(`{`+keysJSON(c)+`,`+hashesJSON(d)+`}`, c)
	f.good("the spare key, committed to again, takes over")
	f.next(`{`+keysJSON(d)+`,"nextKeyHashes":[]}`, d)
	f.good("pre-rotation turned off under its own rule")
	f.next(`{`+keysJSON(a)+`}`, d)
	f.good("old rule again")
	f.next(`{"deactivated":true,"updateKeys":[]}`, a)
	f.good("deactivated")

	for name, entry := range map[string]struct {
		parameters string
		key        Key
	}{
		"a key nobody committed to":         {`{` + keysJSON(d) + `,` + hashesJSON(a) + `}`, d},
		"one key of two not committed to":   {`{` + keysJSON(b, d) + `,` + hashesJSON(a) + `}`, b},
		"the old key signs":                 {`{` + keysJSON(b) + `,` + hashesJSON(a) + `}`, a},
		"the old key stays":                 {`{` + keysJSON(a) + `,` + hashesJSON(b) + `}`, a},
		"no updateKeys":                     {`{` + hashesJSON(b) + `}`, a},
		"no nextKeyHashes":                  {`{` + keysJSON(b) + `}`, b},
		"nothing":                           {`{}`, a},
		"turned off by the old key":         {`{` + keysJSON(a) + `,"nextKeyHashes":[]}`, a},
		"turned off without a key":          {`{"nextKeyHashes":[]}`, a},
		"deactivated in one step, old key":  {`{"deactivated":true,"updateKeys":[],"nextKeyHashes":[]}`, a},
		"deactivated in one step, new key":  {`{"deactivated":true,"updateKeys":[],"nextKeyHashes":[]}`, b},
		"nextKeyHashes null by the old key": {`{` + keysJSON(a) + `,"nextKeyHashes":null}`, a},
		"a hash in the multihash's hex":     {`{` + keysJSON(d) + `,"nextKeyHashes":["1220"]}`, d},
	} {
		f := start()
		f.next(entry.parameters, entry.key)
		f.bad(name)
	}
}

func TestParameters(t *testing.T) {
	a := testKey(t, 1)
	for name, parameters := range map[string]string{
		"unknown parameter":     `,"magic":true`,
		"portable not a bool":   `,"portable":"yes"`,
		"ttl negative":          `,"ttl":-1`,
		"ttl too large":         `,"ttl":2147483649`,
		"ttl a string":          `,"ttl":"3600"`,
		"ttl a fraction":        `,"ttl":1.5`,
		"watchers not a list":   `,"watchers":"https://w.example.com"`,
		"watcher not a URL":     `,"watchers":["w"]`,
		"watcher twice":         `,"watchers":["https://w.example","https://w.example"]`,
		"deactivated a number":  `,"deactivated":1`,
		"nextKeyHashes numbers": `,"nextKeyHashes":[1]`,
		"witness a list":        `,"witness":[]`,
		"portable null":         `,"portable":null`,
	} {
		f := newForger(t, ","+keysJSON(a)+parameters, a)
		f.bad(name)
	}
	for name, parameters := range map[string]string{
		"scid again":      `{"scid":"QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux"}`,
		"portable late":   `{"portable":true}`,
		"another version": `{"method":"did:webvh:2.0"}`,
		"older version":   `{"method":"did:webvh:0.5"}`,
	} {
		f := newForger(t, ","+keysJSON(a), a)
		f.next(parameters, a)
		f.bad(name)
	}
	f := newForger(t, ","+keysJSON(a)+`,"witness":{},"watchers":null,"ttl":null,"nextKeyHashes":null`, a)
	log := f.good("null as early implementations wrote it")
	if p := log.Latest().Parameters; p.TTL != 3600 || len(p.Watchers) != 0 {
		t.Errorf("null means %+v", p)
	}
	f.next(`{"method":"did:webvh:1.0","ttl":0,"watchers":["https://w.example"],"portable":false}`, a)
	if p := f.good("settings").Latest().Parameters; p.TTL != 0 || len(p.Watchers) != 1 {
		t.Errorf("settings are %+v", p)
	}
	for name, method := range map[string]string{"none": ``, "old": `"method":"did:webvh:0.5",`,
		"new": `"method":"did:webvh:1.1",`} {
		g := &forger{t: t, at: f.at}
		g.first(`{`+method+`"scid":"{SCID}",`+keysJSON(a)+`}`, strings.Replace(state, "DID", "did:webvh:{SCID}:example.com", 1), a)
		g.bad("method " + name)
	}
}

func TestMoves(t *testing.T) {
	a := testKey(t, 1)
	moved := func(f *forger, to, known string) {
		t.Helper()
		f.nextState(`{}`, `{"@context":"https://www.w3.org/ns/did/v1","id":"`+to+`","alsoKnownAs":[`+known+`]}`, a)
	}
	f := newForger(t, `,"portable":true,`+keysJSON(a), a)
	old := f.did
	moved(f, "did:webvh:"+f.scid+":example.org:new", `"`+old+`"`)
	log := f.good("moved")
	if _, err := Verify(t.Context(), "did:webvh:"+f.scid+":example.org:new", f.log(), nil); err != nil {
		t.Errorf("the new DID: %v", err)
	}
	if _, err := Verify(t.Context(), "did:webvh:"+f.scid+":example.net", f.log(), nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a DID that never was: %v", err)
	}
	resolution, err := log.Resolve(nil)
	if err != nil || resolution.Document.ID != "did:webvh:"+f.scid+":example.org:new" ||
		!strings.Contains(string(resolution.JSON), "https://example.org/new/whois.vp") {
		t.Errorf("the old DID resolves to %s, %v", resolution.JSON, err)
	}
	f.next(`{"portable":false}`, a)
	f.bad("back without saying where from")

	f = newForger(t, `,"portable":true,`+keysJSON(a), a)
	moved(f, "did:webvh:"+f.scid+":example.org", ``)
	f.bad("former self not in alsoKnownAs")
	f = newForger(t, `,"portable":true,`+keysJSON(a), a)
	moved(f, "did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux:example.com", `"`+f.did+`"`)
	f.bad("another SCID")
	f = newForger(t, `,"portable":true,`+keysJSON(a), a)
	moved(f, "did:webvh:"+f.scid+":127.0.0.1", `"`+f.did+`"`)
	f.bad("to an IP address")
	f = newForger(t, `,"portable":true,`+keysJSON(a), a)
	moved(f, "did:web:example.org", `"`+f.did+`"`)
	f.bad("to another method")
	f = newForger(t, `,`+keysJSON(a), a)
	moved(f, "did:webvh:"+f.scid+":example.org", `"`+f.did+`"`)
	f.bad("not portable")
	f = newForger(t, `,"portable":true,`+keysJSON(a), a)
	f.next(`{"portable":false}`, a)
	moved(f, "did:webvh:"+f.scid+":example.org", `"`+f.did+`"`)
	f.bad("no longer portable")
}

func TestFirstStateIsBoundToSCID(t *testing.T) {
	a := testKey(t, 1)
	parameters := `{"method":"did:webvh:1.0","scid":"{SCID}",` + keysJSON(a) + `}`
	for name, id := range map[string]string{
		"another SCID": "did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux:example.com",
		"did:web":      "did:web:example.com",
		"no DID":       "urn:x",
		"IP address":   "did:webvh:{SCID}:127.0.0.1",
	} {
		f := &forger{t: t, at: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
		f.first(parameters, `{"id":"`+id+`"}`, a)
		f.bad(name)
	}
	f := &forger{t: t, at: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
	f.first(strings.Replace(parameters, placeholder, "QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux", 1),
		`{"id":"did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux:example.com"}`, a)
	f.did = "did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux:example.com"
	f.bad("a SCID that is no hash of the entry")
}

// The SCID may stand in names of members, where replacing it changes their order.
func TestSCIDInNames(t *testing.T) {
	a := testKey(t, 1)
	f := &forger{t: t, at: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
	f.first(`{"method":"did:webvh:1.0","scid":"{SCID}",`+keysJSON(a)+`}`,
		`{"id":"did:webvh:{SCID}:example.com","x":{"a":1,"{SCID}":2,"z":3}}`, a)
	f.good("SCID in a name")
}

func TestTimesAndEnd(t *testing.T) {
	a := testKey(t, 1)
	f := newForger(t, ","+keysJSON(a), a)
	f.at = f.at.Add(-time.Minute) // next adds it again
	f.next(`{}`, a)
	f.bad("the same time")
	f = newForger(t, ","+keysJSON(a), a)
	f.at = f.at.Add(-time.Hour)
	f.next(`{}`, a)
	f.at = f.at.Add(time.Hour)
	f.bad("an earlier time")

	f = newForger(t, ","+keysJSON(a), a)
	for ahead, ok := range map[time.Duration]bool{4 * time.Minute: true, 6 * time.Minute: false} {
		_, err := Verify(t.Context(), f.did, f.log(), &VerifyOptions{Now: f.at.Add(-ahead)})
		if (err == nil) != ok {
			t.Errorf("%v ahead: %v", ahead, err)
		}
	}
	f.next(`{"deactivated":true}`, a)
	log := f.good("deactivated")
	if r, err := log.Resolve(nil); err != nil || !r.DocumentMetadata.Deactivated {
		t.Errorf("deactivated: %v", err)
	}
	f.next(`{}`, a)
	f.bad("an entry after deactivation")
}

// Every single change to a valid log is noticed, by position and kind.
func TestTampering(t *testing.T) {
	a, b := testKey(t, 1), testKey(t, 2)
	f := newForger(t, ","+keysJSON(a), a)
	f.next(`{"ttl":60}`, a)
	f.next(`{`+keysJSON(b)+`}`, a)
	f.good("before")
	second := string(f.lines[1])
	var entry struct {
		VersionID string
		Proof     []struct{ ProofValue string }
	}
	if err := json.Unmarshal(f.lines[1], &entry); err != nil {
		t.Fatal(err)
	}
	value := entry.Proof[0].ProofValue
	random := make([]byte, 64)
	_, _ = rand.Read(random)
	for name, line := range map[string]string{
		"parameter changed":      strings.Replace(second, `"ttl":60`, `"ttl":61`, 1),
		"state changed":          strings.Replace(second, `"@context":"`, `"@context":"x`, 1),
		"time changed":           strings.Replace(second, `12:01:00Z`, `12:01:01Z`, 1),
		"hash changed":           strings.Replace(second, entry.VersionID, "2-"+f.scid, 1),
		"number changed":         strings.Replace(second, `"versionId":"2-`, `"versionId":"3-`, 1),
		"number padded":          strings.Replace(second, `"versionId":"2-`, `"versionId":"02-`, 1),
		"number signed":          strings.Replace(second, `"versionId":"2-`, `"versionId":"+2-`, 1),
		"no proof":               second[:strings.Index(second, `,"proof"`)] + "}",
		"empty proof":            second[:strings.Index(second, `,"proof"`)] + `,"proof":[]}`,
		"proof null":             second[:strings.Index(second, `,"proof"`)] + `,"proof":null}`,
		"signature random":       strings.Replace(second, value, "z"+base58.Encode(random), 1),
		"signature of first":     strings.Replace(second, value, proofValue(t, f.lines[0]), 1),
		"signature in base64":    strings.Replace(second, value, "u"+value[1:], 1),
		"signature empty":        strings.Replace(second, value, "", 1),
		"purpose changed":        strings.Replace(second, `"assertionMethod"`, `"authentication"`, 1),
		"suite changed":          strings.Replace(second, "eddsa-jcs-2022", "eddsa-rdfc-2022", 1),
		"suite for other curves": strings.Replace(second, "eddsa-jcs-2022", "ecdsa-jcs-2019", 1),
		"proof of another type":  strings.Replace(second, "DataIntegrityProof", "Ed25519Signature2020", 1),
		"created changed":        strings.Replace(second, `"created":"2026-01-31T12:01`, `"created":"2026-01-31T12:02`, 1),
		"key in fragment":        strings.Replace(second, "#"+a.Multikey, "#"+b.Multikey, 1),
		"key in did:key":         strings.Replace(second, "did:key:"+a.Multikey, "did:key:"+b.Multikey, 1),
		"key without fragment":   strings.Replace(second, "#"+a.Multikey, "", 1),
		"key by did:web":         strings.Replace(second, "did:key:"+a.Multikey+"#", "did:web:example.com#", 1),
		"unknown member":         strings.Replace(second, `{"versionId"`, `{"x":1,"versionId"`, 1),
		"member twice":           strings.Replace(second, `{"versionId"`, `{"versionTime":"2026-01-31T12:01:00Z","versionId"`, 1),
		"member in upper case":   strings.Replace(second, `{"versionId"`, `{"VERSIONID":"x","versionId"`, 1),
		"parameter twice":        strings.Replace(second, `"ttl":60`, `"ttl":60,"ttl":60`, 1),
		"two entries in a line":  second + second,
		"an array":               "[" + second + "]",
		"empty line":             "",
		"not JSON":               "hello",
		"time of another zone":   strings.Replace(second, `12:01:00Z`, `13:01:00+01:00`, 1),
		"time without zone":      strings.Replace(second, `12:01:00Z`, `12:01:00`, 1),
		"nested deep":            strings.Replace(second, `"ttl":60`, `"ttl":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000), 1),
		"far too long": strings.Replace(second, `"@context":"`, `"@context":"`+strings.Repeat("x",
			did.MaxDocument), 1),
		"left out": string(f.lines[2]),
		"repeated": string(f.lines[0]),
	} {
		log, err := Verify(t.Context(), f.did, []byte(string(f.lines[0])+"\n"+line+"\n"+string(f.lines[2])+"\n"), &VerifyOptions{Now: f.at})
		if err != nil || log.Problem() == nil || len(log.versions) != 1 {
			t.Errorf("%s is not noticed: %v", name, err)
		}
	}
	if _, err := Verify(t.Context(), f.did, nil, nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("empty log: %v", err)
	}
	if _, err := Verify(t.Context(), f.did, []byte("\n\n"), nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("log of empty lines: %v", err)
	}
	windows := bytes.ReplaceAll(f.log(), []byte("\n"), []byte("\r\n"))
	if log, err := Verify(t.Context(), f.did, windows, &VerifyOptions{Now: f.at}); err != nil || log.Problem() != nil {
		t.Errorf("line ends of another system: %v, %v", err, log.Problem())
	}
	if log, err := Verify(t.Context(), f.did, bytes.TrimSuffix(f.log(), []byte("\n")), &VerifyOptions{Now: f.at}); err != nil || log.Problem() != nil {
		t.Errorf("no newline at the end: %v", err)
	}
}

func proofValue(t *testing.T, line []byte) string {
	t.Helper()
	var entry struct{ Proof []struct{ ProofValue string } }
	if err := json.Unmarshal(line, &entry); err != nil {
		t.Fatal(err)
	}
	return entry.Proof[0].ProofValue
}

func TestLimits(t *testing.T) {
	a := testKey(t, 1)
	f := newForger(t, ","+keysJSON(a), a)
	for range 4 {
		f.next(`{}`, a)
	}
	log, err := Verify(t.Context(), f.did, f.log(), &VerifyOptions{Now: f.at, Limits: Limits{Entries: 3}})
	if err != nil || len(log.versions) != 3 || log.Problem() == nil {
		t.Errorf("3 entries: %v, %v", err, log.Problem())
	}
	if _, err := Verify(t.Context(), f.did, f.log(), &VerifyOptions{Now: f.at, Limits: Limits{Line: 100}}); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("lines of 100 bytes: %v", err)
	}
}

// Only Ed25519 keys sign, even when the log lists others.
func TestOtherKindsOfKeys(t *testing.T) {
	a := testKey(t, 1)
	const p256 = "zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"
	f := newForger(t, `,"updateKeys":["`+p256+`","`+a.Multikey+`"]`, a)
	f.good("a P-256 key beside")
	line := bytes.ReplaceAll(f.lines[0], []byte("did:key:"+a.Multikey+"#"+a.Multikey), []byte("did:key:"+p256+"#"+p256))
	if _, err := Verify(t.Context(), f.did, line, &VerifyOptions{Now: f.at}); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a P-256 key signs: %v", err)
	}
	if _, err := key.PublicKey("did:key:" + p256); err != nil {
		t.Fatal(err)
	}
}
