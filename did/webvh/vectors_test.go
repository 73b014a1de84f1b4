package webvh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"holdfast"
	"holdfast/did"
	"holdfast/did/webvh"
	"holdfast/internal/vectors"
)

// files is a web of documents by URL.
type files map[string][]byte

func (f files) Fetch(_ context.Context, url string) ([]byte, error) {
	data, ok := f[url]
	if !ok {
		return nil, holdfast.Errorf(holdfast.ErrNotFound, "fetch", "nothing at %s", url)
	}
	return data, nil
}

// expected is a resolutionResult.json.
type expected struct {
	Document         json.RawMessage `json:"didDocument"`
	DocumentMetadata struct {
		Created       string          `json:"created"`
		Updated       string          `json:"updated"`
		Deactivated   bool            `json:"deactivated"`
		Portable      *bool           `json:"portable"`
		SCID          string          `json:"scid"`
		VersionID     string          `json:"versionId"`
		VersionNumber uint64          `json:"versionNumber"`
		VersionTime   string          `json:"versionTime"`
		Witness       json.RawMessage `json:"witness"`
	} `json:"didDocumentMetadata"`
	Metadata struct {
		Error string `json:"error"`
	} `json:"didResolutionMetadata"`
}

// readOptional returns nil for a file that is not there.
func readOptional(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return data
}

// logDID returns the DID that the first entry of a log has.
func logDID(t *testing.T, log []byte) string {
	t.Helper()
	line, _, _ := bytes.Cut(log, []byte("\n"))
	var entry struct{ State struct{ ID string } }
	if err := json.Unmarshal(line, &entry); err != nil {
		t.Fatal(err)
	}
	return entry.State.ID
}

// TestSuite runs every log of the did:webvh test suite: positive ones resolve to the published result, negative ones are
// refused, and those a file DISPUTED.txt names are only reported.
func TestSuite(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	suite := filepath.Join(dir, "did-webvh", "suite")
	disputed := string(readOptional(t, filepath.Join(suite, "DISPUTED.txt")))
	logs, err := filepath.Glob(filepath.Join(suite, "*", "*", "did.jsonl"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs in %s: %v", suite, err)
	}
	for _, path := range logs {
		folder := filepath.Dir(path)
		name := filepath.ToSlash(strings.TrimPrefix(folder, suite+string(filepath.Separator)))
		t.Run(name, func(t *testing.T) {
			switch {
			case strings.Contains(disputed, name):
				_, err := webvh.Verify(t.Context(), logDID(t, readOptional(t, path)), readOptional(t, path), nil)
				t.Logf("disputed; Verify says %v", err)
			case strings.HasPrefix(name, "negative-"):
				checkNegative(t, folder)
			default:
				checkPositive(t, folder)
			}
		})
	}
}

func checkNegative(t *testing.T, folder string) {
	log := readOptional(t, filepath.Join(folder, "did.jsonl"))
	var dids []string
	if len(bytes.TrimSpace(log)) == 0 {
		dids = []string{scriptDID(t, filepath.Join(filepath.Dir(folder), "script.yaml"))}
	} else {
		line, _, _ := bytes.Cut(log, []byte("\n"))
		var entry struct{ Parameters struct{ SCID string } }
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatal(err)
		}
		dids = []string{logDID(t, log), "did:webvh:" + entry.Parameters.SCID + ":example.com"}
	}
	for _, s := range dids {
		web := files{}
		if location, err := webvh.Parse(s); err == nil {
			web[location.LogURL()] = log
		}
		_, err := (&webvh.Resolver{Fetcher: web}).Resolve(t.Context(), s, nil)
		problem, ok := errors.AsType[*did.Problem](err)
		if !ok || problem.Type != did.InvalidDID {
			t.Errorf("%s resolves with %v, want %s", s, err, did.InvalidDID)
		}
		t.Logf("%s: %v", s, err)
	}
}

// scriptDID returns the literal DID in a script.yaml.
func scriptDID(t *testing.T, path string) string {
	t.Helper()
	for line := range strings.Lines(string(readOptional(t, path))) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "did: "); ok {
			s, err := strconv.Unquote(rest)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatalf("no DID in %s", path)
	return ""
}

func checkPositive(t *testing.T, folder string) {
	log := readOptional(t, filepath.Join(folder, "did.jsonl"))
	s := logDID(t, log)
	location, err := webvh.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	web := files{location.LogURL(): log}
	if witness := readOptional(t, filepath.Join(folder, "did-witness.json")); witness != nil {
		web[location.WitnessURL()] = witness
	}
	resolver := &webvh.Resolver{Fetcher: web}
	compareResult(t, resolver, s, nil, filepath.Join(folder, "resolutionResult.json"))
	for number := uint64(1); ; number++ {
		path := filepath.Join(folder, "resolutionResult."+strconv.FormatUint(number, 10)+".json")
		if readOptional(t, path) == nil {
			return
		}
		compareResult(t, resolver, s, &did.ResolveOptions{VersionNumber: number}, path)
	}
}

func compareResult(t *testing.T, resolver did.Resolver, s string, options *did.ResolveOptions, path string) {
	t.Helper()
	var want expected
	if err := json.Unmarshal(readOptional(t, path), &want); err != nil {
		t.Fatal(err)
	}
	got, err := resolver.Resolve(t.Context(), s, options)
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	if options != nil && want.DocumentMetadata.VersionNumber != options.VersionNumber {
		t.Logf("%s asks for version %d and shows version %d: not compared", path, options.VersionNumber, want.DocumentMetadata.VersionNumber)
		return
	}
	if a, b := normalDocument(t, got.JSON, s), normalDocument(t, want.Document, s); !reflect.DeepEqual(a, b) {
		t.Errorf("document\n%v\nwant\n%v", a, b)
	}
	compareMetadata(t, got.DocumentMetadata, &want)
}

func compareMetadata(t *testing.T, g did.DocumentMetadata, want *expected) {
	t.Helper()
	w := want.DocumentMetadata
	if g.Created != w.Created || g.Updated != w.Updated || g.VersionID != w.VersionID || g.VersionTime != w.VersionTime ||
		g.VersionNumber != w.VersionNumber || g.Deactivated != w.Deactivated {
		t.Errorf("metadata %+v, want %+v", g, w)
	}
	if w.Portable != nil && *g.Portable != *w.Portable || w.SCID != "" && g.SCID != w.SCID {
		t.Errorf("metadata %+v, want %+v", g, w)
	}
	if w.Witness != nil && strings.Contains(string(w.Witness), "threshold") {
		// The specification wants the number as a string.
		if have := strings.Replace(string(g.Witness), `"1"`, `1`, 1); !reflect.DeepEqual(decode(t, []byte(have)), decode(t, w.Witness)) {
			t.Errorf("witness %s, want %s", g.Witness, w.Witness)
		}
	}
}

func decode(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

// normalDocument evens out what implementations write differently: relative or absolute ids of services, and a slash at
// the end of endpoints.
func normalDocument(t *testing.T, data []byte, s string) map[string]any {
	t.Helper()
	document := decode(t, data).(map[string]any)
	services, _ := document["service"].([]any)
	for _, each := range services {
		service := each.(map[string]any)
		service["id"] = strings.TrimPrefix(service["id"].(string), s)
		if endpoint, ok := service["serviceEndpoint"].(string); ok {
			service["serviceEndpoint"] = strings.TrimSuffix(endpoint, "/")
		}
	}
	return document
}
