package did_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/did"
)

func wantProblem(t *testing.T, what string, err error, want did.ProblemType) {
	t.Helper()
	problem, ok := errors.AsType[*did.Problem](err)
	if !ok || problem.Type != want || !errors.Is(err, want.Code()) {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{
		"did:example:123456789abcdefghi", "did:a:b", "did:web:example.com%3A3000:a:b", "did:x1:a::b", "did:x::b", "did:x:A-Z_.%00",
	} {
		d, err := did.Parse(s)
		if err != nil || d.String() != s {
			t.Errorf("Parse(%s) = %s, %v", s, d, err)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "scheme only": "did:", "no id": "did:a", "empty id": "did:a:", "empty method": "did::a",
		"colon at the end":  "did:a:b:",
		"upper case scheme": "DID:a:b", "upper case method": "did:A:b", "hyphen in method": "did:a-b:c",
		"path":  "did:a:b/c",
		"query": "did:a:b?c", "fragment": "did:a:b#c", "space": "did:a:b ", "line feed": "did:a:b\n", "NUL": "did:a:b\x00",
		"broken percent": "did:a:b%", "short percent": "did:a:b%2", "percent not hex": "did:a:b%xy", "not ASCII": "did:a:é",
		"look-alike colon": "did\ua789a:b", "full-width": "did:a:ｂ", "tilde": "did:a:b~",
		"huge": "did:a:" + strings.Repeat("b", 1<<20),
	} {
		_, err := did.Parse(s)
		wantProblem(t, name, err, did.InvalidDID)
	}
}

func TestParseURL(t *testing.T) {
	u, err := did.ParseURL("did:example:123/a/b%20c;d?versionId=1&x=/?#key-1")
	if err != nil {
		t.Fatal(err)
	}
	if u.DID.ID != "123" || u.Path != "/a/b%20c;d" || u.Query != "versionId=1&x=/?" || u.Fragment != "key-1" {
		t.Errorf("%+v", u)
	}
	for _, s := range []string{"did:a:b", "did:a:b?", "did:a:b#", "did:a:b/?#", "did:a:b#a/b?c"} {
		if u, err := did.ParseURL(s); err != nil || u.String() != s {
			t.Errorf("ParseURL(%s) = %s, %v", s, u, err)
		}
	}
	for name, s := range map[string]string{
		"two fragments": "did:a:b#c#d", "space": "did:a:b/ ", "broken percent": "did:a:b/%", "not ASCII": "did:a:b#é",
		"bracket": "did:a:b/[",
		"huge":    "did:a:b#" + strings.Repeat("c", 1<<20), "backslash": `did:a:b/\..`,
	} {
		_, err := did.ParseURL(s)
		wantProblem(t, name, err, did.InvalidDIDURL)
	}
	_, err = did.ParseURL("did:a:/b")
	wantProblem(t, "no id", err, did.InvalidDID)
}

func TestURLOptions(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]did.ResolveOptions{
		"did:a:b":                                       {},
		"did:a:b?service=files&relativeRef=/x":          {},
		"did:a:b?versionId=1-Qm":                        {VersionID: "1-Qm"},
		"did:a:b?versionNumber=7":                       {VersionNumber: 7},
		"did:a:b?versionTime=2026-01-31T12:00:00Z":      {VersionTime: at},
		"did:a:b?versionTime=2026-01-31T12:00:00+00:00": {VersionTime: at},
	} {
		u, err := did.ParseURL(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := u.ResolveOptions(); err != nil || *got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]did.ProblemType{
		"did:a:b?versionId=1&versionId=2":                 did.InvalidDIDURL,
		"did:a:b?versionNumber=1&versionNumber=1":         did.InvalidDIDURL,
		"did:a:b?a;b=c":                                   did.InvalidDIDURL,
		"did:a:b?versionTime=yesterday":                   did.InvalidOptions,
		"did:a:b?versionTime=2026-01-31T12:00:00%2B01:00": did.InvalidOptions,
		"did:a:b?versionNumber=0":                         did.InvalidOptions,
		"did:a:b?versionNumber=01":                        did.InvalidOptions,
		"did:a:b?versionNumber=-1":                        did.InvalidOptions,
		"did:a:b?versionNumber=":                          did.InvalidOptions,
		"did:a:b?versionNumber=99999999999999999999":      did.InvalidOptions,
	} {
		u, err := did.ParseURL(s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = u.ResolveOptions()
		wantProblem(t, s, err, want)
	}
}

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Time{
		"2026-01-31T12:00:00Z":           time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31T12:00:00+00:00":      time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31T12:00:00.5Z":         time.Date(2026, 1, 31, 12, 0, 0, 5e8, time.UTC),
		"2026-01-31T12:00:00.123456789Z": time.Date(2026, 1, 31, 12, 0, 0, 123456789, time.UTC),
	} {
		if got, err := did.ParseTime(s); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00Z", "2026-01-31t12:00:00z", "2026-01-31T12:00:00+01:00",
		"2026-01-31T12:00:00-00:00", "2026-02-30T12:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T12:00:60Z", "2026-01-31T1:00:00Z",
		"2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00.1234567890Z", "2026-01-31T12:00:00ZZ", " 2026-01-31T12:00:00Z", "20260131T120000Z",
		"2026-01-31T12:00:00Z+00:00", "2026-01-31T12:00:00.Z", strings.Repeat("2", 1000),
	} {
		if got, err := did.ParseTime(s); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%.40q: %v, %v", s, got, err)
		}
	}
}

func TestProblems(t *testing.T) {
	err := did.Problemf(did.NotFound, "nothing at %q: %w", "x", context.DeadlineExceeded)
	wantProblem(t, "Problemf", err, did.NotFound)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the cause is lost")
	}
	text, _ := json.Marshal(did.ProblemOf(err))
	want := `{"type":"https://www.w3.org/ns/did#NOT_FOUND","title":"The DID was not found.","detail":"nothing at \"x\": context deadline exceeded"}`
	if string(text) != want {
		t.Errorf("%s, want %s", text, want)
	}
	if did.ProblemOf(nil) != nil {
		t.Error("a problem of nothing")
	}
	for err, want := range map[error]did.ProblemType{
		context.Canceled:        did.InternalError,
		holdfast.ErrInvalid:     did.InvalidDID,
		holdfast.ErrNotFound:    did.NotFound,
		holdfast.ErrDenied:      did.InternalError,
		errors.New("something"): did.InternalError,
		holdfast.Errorf(holdfast.ErrUnsupported, "", "no"): did.FeatureNotSupported,
	} {
		if p := did.ProblemOf(err); p.Type != want || !errors.Is(p, err) {
			t.Errorf("%v is a %s", err, p.Type)
		}
	}
	legacy := map[did.ProblemType]string{
		did.InvalidDID: "invalidDid", did.InvalidDIDURL: "invalidDidUrl", did.InvalidDIDDocument: "invalidDidDocument",
		did.InvalidOptions: "invalidOptions", did.NotFound: "notFound",
		did.RepresentationNotSupported: "representationNotSupported",
		did.MethodNotSupported:         "methodNotSupported", did.FeatureNotSupported: "featureNotSupported",
		did.InternalError: "internalError",
	}
	for problem, want := range legacy {
		if problem.Legacy() != want || !strings.HasSuffix(problem.URL(), "#"+string(problem)) || problem.Title() == "" {
			t.Errorf("%s: %s, %s, %s", problem, problem.Legacy(), problem.URL(), problem.Title())
		}
	}
}

func TestMethods(t *testing.T) {
	_, err := did.Methods{}.Resolve(t.Context(), "did:example:1", nil)
	wantProblem(t, "unknown method", err, did.MethodNotSupported)
	_, err = did.Methods{}.Resolve(t.Context(), "did:example:1#x", nil)
	wantProblem(t, "DID URL", err, did.InvalidDID)
	_, err = did.Methods{}.Resolve(t.Context(), "did:example:1", &did.ResolveOptions{VersionID: "1", VersionNumber: 1})
	wantProblem(t, "two versions", err, did.InvalidOptions)
}

func FuzzParse(f *testing.F) {
	f.Add("did:example:1")
	f.Add("did:web:example.com%3A80:a::b")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := did.Parse(s)
		if err != nil {
			return
		}
		if d.String() != s {
			t.Fatalf("%q becomes %q", s, d)
		}
		if u, err := did.ParseURL(s); err != nil || u.DID != d {
			t.Fatalf("%q as a DID URL: %+v, %v", s, u, err)
		}
	})
}

func FuzzParseURL(f *testing.F) {
	f.Add("did:example:1/a?versionId=1&versionTime=2026-01-31T12:00:00Z#key-1")
	f.Add("did:a:b?#")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := did.ParseURL(s)
		if err != nil {
			return
		}
		if u.String() != s {
			t.Fatalf("%q becomes %q", s, u)
		}
		if options, err := u.ResolveOptions(); err == nil && options == nil {
			t.Fatal("no options and no error")
		}
	})
}
