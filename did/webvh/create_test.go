package webvh_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/did/webvh"
)

func mustCreate(t *testing.T, change func(*webvh.CreateRequest)) *webvh.Created {
	t.Helper()
	r := request(t)
	if change != nil {
		change(&r)
	}
	created, err := webvh.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func TestCreate(t *testing.T) {
	created := mustCreate(t, func(r *webvh.CreateRequest) {
		r.Domain, r.Path = "dids.example.com:8443", []string{"staff", "ada löwe"}
		r.NextKeyHashes = []string{webvh.KeyHash(testKey(t, 2).Multikey)}
		r.Portable, r.TTL, r.Web = true, new(uint32(60)), true
		r.Watchers = []string{"https://watcher.example.com"}
	})
	if !strings.HasSuffix(created.DID, ":dids.example.com%3A8443:staff:ada%20l%C3%B6we") {
		t.Errorf("DID %s", created.DID)
	}
	log, err := webvh.Verify(t.Context(), created.DID, append(created.Entry, '\n'), nil)
	if err != nil || log.Problem() != nil || log.Latest().ID != created.VersionID {
		t.Fatalf("Verify: %v, %v", err, log)
	}
	r, err := log.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.DocumentMetadata; m.TTL != "60" || !*m.Portable || len(m.Watchers) != 1 || m.Created != "2026-01-31T12:00:00Z" || m.Deactivated {
		t.Errorf("metadata %+v", m)
	}
	if len(r.Document.AlsoKnownAs) != 1 || r.Document.AlsoKnownAs[0] != "did:web:dids.example.com%3A8443:staff:ada%20l%C3%B6we" {
		t.Errorf("alsoKnownAs %v", r.Document.AlsoKnownAs)
	}
	if _, err := r.Document.Method(did.AssertionMethod, "#key-1"); err != nil {
		t.Error(err)
	}
	if len(r.Document.Service) != 2 || r.Document.Service[0].ID != created.DID+"#files" ||
		string(r.Document.Service[1].Endpoint) != `"https://dids.example.com:8443/staff/ada%20l%C3%B6we/whois.vp"` {
		t.Errorf("services %+v", r.Document.Service)
	}
}

func TestCreateWithSCIDInPath(t *testing.T) {
	created := mustCreate(t, func(r *webvh.CreateRequest) { r.Path = []string{"dids", "{SCID}"} })
	location, err := webvh.Parse(created.DID)
	if err != nil || location.Path[1] != location.SCID {
		t.Errorf("%s, %v", created.DID, err)
	}
}

func TestCreateInternationalDomain(t *testing.T) {
	created := mustCreate(t, func(r *webvh.CreateRequest) { r.Domain, r.Path = "jp納豆.例.jp", []string{"用户"} })
	location, err := webvh.Parse(created.DID)
	if err != nil || location.LogURL() != "https://xn--jp-cd2fp15c.xn--fsq.jp/%E7%94%A8%E6%88%B7/did.jsonl" {
		t.Errorf("%s, %v", created.DID, err)
	}
}

// A request that cannot work is refused before the device is asked for a signature.
func TestCreateRefused(t *testing.T) {
	asked := false
	sign := func(context.Context, []byte) ([]byte, error) {
		asked = true
		return nil, errors.New("asked")
	}
	for name, change := range map[string]func(*webvh.CreateRequest){
		"no domain":           func(r *webvh.CreateRequest) { r.Domain = "" },
		"an IP address":       func(r *webvh.CreateRequest) { r.Domain = "127.0.0.1" },
		"an IPv6 address":     func(r *webvh.CreateRequest) { r.Domain = "[::1]" },
		"localhost":           func(r *webvh.CreateRequest) { r.Domain = "localhost:8080" },
		"a URL":               func(r *webvh.CreateRequest) { r.Domain = "https://example.com" },
		"percent-encoded":     func(r *webvh.CreateRequest) { r.Domain = "example%2Ecom" },
		"port zero":           func(r *webvh.CreateRequest) { r.Domain = "example.com:0" },
		"path with slash":     func(r *webvh.CreateRequest) { r.Path = []string{"a/b"} },
		"path traversal":      func(r *webvh.CreateRequest) { r.Path = []string{".."} },
		"path encoded":        func(r *webvh.CreateRequest) { r.Path = []string{"%2e%2e"} },
		"empty segment":       func(r *webvh.CreateRequest) { r.Path = []string{""} },
		"no time":             func(r *webvh.CreateRequest) { r.VersionTime = time.Time{} },
		"no key":              func(r *webvh.CreateRequest) { r.UpdateKey.Multikey = "" },
		"key twice":           func(r *webvh.CreateRequest) { r.UpdateKeys = []string{r.UpdateKey.Multikey} },
		"no document":         func(r *webvh.CreateRequest) { r.Document = nil },
		"document not JSON":   func(r *webvh.CreateRequest) { r.Document = []byte("{DID}") },
		"document an array":   func(r *webvh.CreateRequest) { r.Document = []byte(`["{DID}"]`) },
		"document duplicates": func(r *webvh.CreateRequest) { r.Document = []byte(`{"id":"{DID}","id":"{DID}"}`) },
		"document of another": func(r *webvh.CreateRequest) { r.Document = []byte(`{"id":"did:web:example.com"}`) },
		"document invalid":    func(r *webvh.CreateRequest) { r.Document = []byte(`{"id":"{DID}","authentication":[1]}`) },
		"document too long": func(r *webvh.CreateRequest) {
			r.Document = []byte(`{"id":"{DID}","x":"` + strings.Repeat("x", 1<<20) + `"}`)
		},
		"witness threshold": func(r *webvh.CreateRequest) {
			r.Witness = webvh.Witness{Threshold: 2, Witnesses: []string{"did:key:" + r.UpdateKey.Multikey}}
		},
		"witness no did:key": func(r *webvh.CreateRequest) {
			r.Witness = webvh.Witness{Threshold: 1, Witnesses: []string{"did:web:example.com"}}
		},
		"watcher no URL": func(r *webvh.CreateRequest) { r.Watchers = []string{"watcher"} },
		"TTL":            func(r *webvh.CreateRequest) { r.TTL = new(uint32(1<<31 + 1)) },
	} {
		r := request(t)
		r.UpdateKey.Sign = sign
		change(&r)
		if _, err := webvh.Create(t.Context(), r); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked {
		t.Error("the key was asked to sign")
	}
}

func TestSignerErrors(t *testing.T) {
	r := request(t)
	gone := holdfast.Errorf(holdfast.ErrUnavailable, "sign", "unplugged")
	r.UpdateKey.Sign = func(context.Context, []byte) ([]byte, error) { return nil, gone }
	if _, err := webvh.Create(t.Context(), r); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("a device that is away: %v", err)
	}
	r.UpdateKey.Sign = testKey(t, 2).Sign
	if _, err := webvh.Create(t.Context(), r); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("a signature by another key: %v", err)
	}
	r.UpdateKey.Sign = func(context.Context, []byte) ([]byte, error) { return []byte("short"), nil }
	if _, err := webvh.Create(t.Context(), r); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("no signature at all: %v", err)
	}
	r.UpdateKey.Sign = nil
	if _, err := webvh.Create(t.Context(), r); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("no signer: %v", err)
	}
}

// A life: created with pre-rotation, rotated, recovered with the spare key, moved, ended.
func TestNext(t *testing.T) {
	second, third, spare := testKey(t, 2), testKey(t, 3), testKey(t, 9)
	hashes := func(keys ...webvh.Key) []string {
		list := make([]string, len(keys))
		for i, k := range keys {
			list[i] = webvh.KeyHash(k.Multikey)
		}
		return list
	}
	created := mustCreate(t, func(r *webvh.CreateRequest) { r.Portable, r.NextKeyHashes = true, hashes(second, spare) })
	text := string(created.Entry) + "\n"
	old := created.DID
	at := born()
	step := func(what string, r webvh.NextRequest) {
		t.Helper()
		at = at.Add(time.Hour)
		r.VersionTime = at
		next, err := webvh.Next(t.Context(), created.Log, r)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		text += string(next.Entry) + "\n"
		created = next
		if log, err := webvh.Verify(t.Context(), next.DID, []byte(text), nil); err != nil || log.Problem() != nil {
			t.Fatalf("%s: %v, %v", what, err, log.Problem())
		}
	}
	step("rotate", webvh.NextRequest{UpdateKey: second, UpdateKeys: []string{second.Multikey}, NextKeyHashes: hashes(third, spare)})
	step("recover", webvh.NextRequest{UpdateKey: spare, UpdateKeys: []string{spare.Multikey}, NextKeyHashes: hashes(third)})
	step("turn pre-rotation off and move", webvh.NextRequest{
		UpdateKey: third, UpdateKeys: []string{third.Multikey}, NextKeyHashes: []string{}, Domain: "example.org", Path: []string{"new"},
	})
	if !strings.HasSuffix(created.DID, ":example.org:new") {
		t.Errorf("moved to %s", created.DID)
	}
	r, err := created.Log.Resolve(nil)
	if err != nil || r.Document.AlsoKnownAs[0] != old || r.Document.VerificationMethod[0].Controller != created.DID {
		t.Fatalf("moved document %s, %v", r.JSON, err)
	}
	step("move back", webvh.NextRequest{UpdateKey: third, Domain: "dids.example.com", NotPortable: true})
	if created.DID != old {
		t.Errorf("back at %s, not %s", created.DID, old)
	}
	step("document", webvh.NextRequest{UpdateKey: third, Document: []byte(`{"id":"{DID}","alsoKnownAs":["urn:x"]}`)})
	step("end", webvh.NextRequest{UpdateKey: third, UpdateKeys: []string{}, Deactivate: true})

	_, err = webvh.Next(t.Context(), created.Log, webvh.NextRequest{UpdateKey: third, VersionTime: at.Add(time.Hour)})
	if !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("after the end: %v", err)
	}
	if n := len(created.Log.Versions()); n != 7 {
		t.Errorf("%d versions", n)
	}
}

func TestNextRefused(t *testing.T) {
	created := mustCreate(t, func(r *webvh.CreateRequest) { r.NextKeyHashes = []string{webvh.KeyHash(testKey(t, 2).Multikey)} })
	second := testKey(t, 2)
	good := webvh.NextRequest{
		UpdateKey: second, UpdateKeys: []string{second.Multikey}, NextKeyHashes: []string{}, VersionTime: born().Add(time.Hour),
	}
	if _, err := webvh.Next(t.Context(), created.Log, good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*webvh.NextRequest){
		"old key": func(r *webvh.NextRequest) { r.UpdateKey = testKey(t, 1) },
		"key not committed to": func(r *webvh.NextRequest) {
			r.UpdateKey = testKey(t, 3)
			r.UpdateKeys = []string{testKey(t, 3).Multikey}
		},
		"no commitment":  func(r *webvh.NextRequest) { r.NextKeyHashes = nil },
		"no time":        func(r *webvh.NextRequest) { r.VersionTime = time.Time{} },
		"same time":      func(r *webvh.NextRequest) { r.VersionTime = born() },
		"same second":    func(r *webvh.NextRequest) { r.VersionTime = born().Add(time.Second / 2) },
		"moved":          func(r *webvh.NextRequest) { r.Domain = "example.org" },
		"to another DID": func(r *webvh.NextRequest) { r.Document = []byte(`{"id":"did:web:example.com"}`) },
	} {
		r := good
		r.UpdateKey.Sign = func(context.Context, []byte) ([]byte, error) {
			t.Errorf("%s: the key is asked to sign", name)
			return nil, errors.New("asked")
		}
		change(&r)
		if _, err := webvh.Next(t.Context(), created.Log, r); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResolver(t *testing.T) {
	created := mustCreate(t, nil)
	next, err := webvh.Next(t.Context(), created.Log, webvh.NextRequest{UpdateKey: testKey(t, 1), VersionTime: born().Add(time.Hour), TTL: new(uint32(5))})
	if err != nil {
		t.Fatal(err)
	}
	location, err := webvh.Parse(created.DID)
	if err != nil {
		t.Fatal(err)
	}
	text := string(created.Entry) + "\n" + string(next.Entry) + "\n"
	resolver := did.Methods{"webvh": &webvh.Resolver{
		Fetcher: files{location.LogURL(): []byte(text)}, Now: func() time.Time { return born().Add(24 * time.Hour) },
	}}
	for name, c := range map[string]struct {
		options *did.ResolveOptions
		number  uint64
		problem did.ProblemType
	}{
		"latest":           {nil, 2, ""},
		"zero options":     {&did.ResolveOptions{}, 2, ""},
		"by number":        {&did.ResolveOptions{VersionNumber: 1}, 1, ""},
		"by number, none":  {&did.ResolveOptions{VersionNumber: 3}, 0, did.NotFound},
		"by id":            {&did.ResolveOptions{VersionID: created.VersionID}, 1, ""},
		"by id, none":      {&did.ResolveOptions{VersionID: "1-x"}, 0, did.NotFound},
		"at creation":      {&did.ResolveOptions{VersionTime: born()}, 1, ""},
		"before":           {&did.ResolveOptions{VersionTime: born().Add(-time.Second)}, 0, did.NotFound},
		"between":          {&did.ResolveOptions{VersionTime: born().Add(time.Minute)}, 1, ""},
		"at update":        {&did.ResolveOptions{VersionTime: born().Add(time.Hour)}, 2, ""},
		"after":            {&did.ResolveOptions{VersionTime: born().Add(9 * time.Hour)}, 2, ""},
		"two ways at once": {&did.ResolveOptions{VersionTime: born(), VersionNumber: 1}, 0, did.InvalidOptions},
	} {
		r, err := resolver.Resolve(t.Context(), created.DID, c.options)
		if c.problem != "" {
			if p := did.ProblemOf(err); p == nil || p.Type != c.problem {
				t.Errorf("%s: %v, want %s", name, err, c.problem)
			}
			continue
		}
		if err != nil || r.DocumentMetadata.VersionNumber != c.number {
			t.Errorf("%s: version %v, %v", name, r, err)
		}
	}
	_, err = resolver.Resolve(t.Context(), strings.Replace(created.DID, "dids.", "other.", 1), nil)
	if p := did.ProblemOf(err); p == nil || p.Type != did.NotFound || !errors.Is(err, holdfast.ErrNotFound) {
		t.Errorf("no log: %v", err)
	}
}

// gone is a web that is away.
type gone struct{}

func (gone) Fetch(context.Context, string) ([]byte, error) {
	return nil, holdfast.Errorf(holdfast.ErrUnavailable, "fetch", "10.0.0.1 does not answer")
}

func TestResolverWithoutNetwork(t *testing.T) {
	_, err := (&webvh.Resolver{Fetcher: gone{}}).Resolve(t.Context(), mustCreate(t, nil).DID, nil)
	if !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("no network: %v", err)
	}
	if p := did.ProblemOf(err); p.Type != did.InternalError || strings.Contains(p.Detail, "10.0") {
		t.Errorf("the problem shown is %+v", p)
	}
}

func TestResolverWithWitnesses(t *testing.T) {
	witness := testKey(t, 7)
	created := mustCreate(t, func(r *webvh.CreateRequest) {
		r.Witness = webvh.Witness{Threshold: 1, Witnesses: []string{"did:key:" + witness.Multikey}}
	})
	location, err := webvh.Parse(created.DID)
	if err != nil {
		t.Fatal(err)
	}
	web := files{location.LogURL(): append(created.Entry, '\n')}
	resolver := &webvh.Resolver{Fetcher: web}
	if _, err := resolver.Resolve(t.Context(), created.DID, nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("without approval: %v", err)
	}
	proof, err := webvh.Approve(t.Context(), created.VersionID, born(), witness)
	if err != nil {
		t.Fatal(err)
	}
	web[location.WitnessURL()] = []byte(`[{"versionId":"` + created.VersionID + `","proof":[` + string(proof) + `]}]`)
	r, err := resolver.Resolve(t.Context(), created.DID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"threshold":"1","witnesses":[{"id":"did:key:` + witness.Multikey + `"}]}`; string(r.DocumentMetadata.Witness) != want {
		t.Errorf("witness metadata %s, want %s", r.DocumentMetadata.Witness, want)
	}
}

func TestWebDocument(t *testing.T) {
	created := mustCreate(t, func(r *webvh.CreateRequest) {
		r.Web = true
		r.Document = []byte(strings.Replace(template, `"authentication"`, `"service":[{"id":"#files","type":"own","serviceEndpoint":"https://x.example"}],"authentication"`, 1))
	})
	text, err := created.Log.WebDocument()
	if err != nil {
		t.Fatal(err)
	}
	d, err := did.ParseDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	if d.ID != "did:web:dids.example.com" || len(d.AlsoKnownAs) != 1 || d.AlsoKnownAs[0] != created.DID {
		t.Errorf("id %s, alsoKnownAs %v", d.ID, d.AlsoKnownAs)
	}
	if len(d.Service) != 2 || d.Service[0].Type[0] != "own" || d.Service[1].ID != "did:web:dids.example.com#whois" {
		t.Errorf("services %+v", d.Service)
	}
	if m, err := d.Method(did.Authentication, "#key-1"); err != nil || m.Controller != d.ID {
		t.Errorf("method %+v, %v", m, err)
	}
}

func TestResolutionMarshals(t *testing.T) {
	r, err := mustCreate(t, nil).Log.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || len(members) != 3 {
		t.Errorf("%s, %v", text, err)
	}
	if want := `{"contentType":"application/did"}`; string(members["didResolutionMetadata"]) != want {
		t.Errorf("didResolutionMetadata %s, want %s", members["didResolutionMetadata"], want)
	}
}

func TestVerifyHonoursContext(t *testing.T) {
	created := mustCreate(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := webvh.Verify(ctx, created.DID, created.Entry, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
