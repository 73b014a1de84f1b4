package webvh_test

import (
	"errors"
	"strings"
	"testing"

	"holdfast"
	"holdfast/did"
	"holdfast/did/webvh"
)

const scid = "QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878Yux"

func TestLocations(t *testing.T) {
	for suffix, want := range map[string]string{
		"example.com":                                          "https://example.com/.well-known/did.jsonl",
		"issuer.example.com":                                   "https://issuer.example.com/.well-known/did.jsonl",
		"example.com:dids:issuer":                              "https://example.com/dids/issuer/did.jsonl",
		"example.com%3A3000:dids:issuer":                       "https://example.com:3000/dids/issuer/did.jsonl",
		"example.com%3a3000":                                   "https://example.com:3000/.well-known/did.jsonl",
		"xn--jp-cd2fp15c.xn--fsq.jp:%E7%94%A8":                 "https://xn--jp-cd2fp15c.xn--fsq.jp/%E7%94%A8/did.jsonl",
		"jp%E7%B4%8D%E8%B1%86.%E4%BE%8B.jp:%E7%94%A8%E6%88%B7": "https://xn--jp-cd2fp15c.xn--fsq.jp/%E7%94%A8%E6%88%B7/did.jsonl",
		"EXAMPLE.com:Path":                                     "https://example.com/Path/did.jsonl",
		"example.com:a%20b":                                    "https://example.com/a%20b/did.jsonl",
		"example.com:a%3Ab":                                    "https://example.com/a%3Ab/did.jsonl",
		"example.com:a%3Fb%23c":                                "https://example.com/a%3Fb%23c/did.jsonl",
		"example.com:...":                                      "https://example.com/.../did.jsonl",
		"1.2.3.4.example.com":                                  "https://1.2.3.4.example.com/.well-known/did.jsonl",
		"4.4":                                                  "",
	} {
		location, err := webvh.Parse("did:webvh:" + scid + ":" + suffix)
		if want == "" {
			if err == nil {
				t.Errorf("%s is accepted", suffix)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", suffix, err)
			continue
		}
		if got := location.LogURL(); got != want {
			t.Errorf("%s is at %s, want %s", suffix, got, want)
		}
		again, err := webvh.Parse(location.DID())
		if err != nil || again.LogURL() != want {
			t.Errorf("%s becomes %s, %v", suffix, location.DID(), err)
		}
	}
}

func TestOtherFiles(t *testing.T) {
	location, err := webvh.Parse("did:webvh:" + scid + ":example.com%3A8443:dids")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := location.WitnessURL(), "https://example.com:8443/dids/did-witness.json"; got != want {
		t.Errorf("WitnessURL = %s, want %s", got, want)
	}
	if got, want := location.WebURL(), "https://example.com:8443/dids/did.json"; got != want {
		t.Errorf("WebURL = %s, want %s", got, want)
	}
	if got, want := location.WebDID(), "did:web:example.com%3A8443:dids"; got != want {
		t.Errorf("WebDID = %s, want %s", got, want)
	}
}

func refuseDID(t *testing.T, name, s string) {
	t.Helper()
	location, err := webvh.Parse(s)
	problem, ok := errors.AsType[*did.Problem](err)
	if !ok || problem.Type != did.InvalidDID || !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("%s: Parse(%.120q) = %+v, %v; want %s", name, s, location, err, did.InvalidDID)
	}
}

func TestHostsRefused(t *testing.T) {
	for name, host := range map[string]string{
		"IPv4":                    "127.0.0.1",
		"IPv4 with port":          "127.0.0.1%3A80",
		"IPv4 of two numbers":     "127.1",
		"IPv4 hexadecimal":        "0x7f.0x0.0x0.0x1",
		"IPv4 octal":              "0177.0.0.01",
		"IPv4 mixed":              "a.0x7f000001",
		"IPv4 as one number":      "2130706433",
		"IPv4 hexadecimal number": "0x7f000001",
		"IPv4 percent-encoded":    "%31%32%37.0.0.1",
		"IPv4 encoded dots":       "127%2E0%2E0%2E1",
		"IPv4 full-width":         "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
		"IPv4 circled digits":     "%E2%91%A0%E2%91%A1%E2%91%A6.0.0.1",
		"IPv4 ideographic stops":  "127%E3%80%820%E3%80%820%E3%80%821",
		"IPv4 with last dot":      "127.0.0.1.",
		"IPv6":                    "%5B%3A%3A1%5D",
		"IPv6 with port":          "%5B%3A%3A1%5D%3A443",
		"IPv6 bare":               "%3A%3A1",
		"IPv6 mapped":             "%5B%3A%3Affff%3A127.0.0.1%5D",
		"localhost":               "localhost",
		"one label":               "intranet",
		"one label with port":     "intranet%3A80",
		"last dot":                "example.com.",
		"first dot":               ".example.com",
		"two dots":                "example..com",
		"empty":                   "",
		"only a port":             "%3A443",
		"hyphen first":            "-a.example.com",
		"hyphen last":             "a-.example.com",
		"underscore":              "a_b.example.com",
		"slash":                   "example.com%2Fpath",
		"backslash":               "example.com%5Cpath",
		"user":                    "user%40example.com",
		"question mark":           "example.com%3Fa",
		"hash":                    "example.com%23a",
		"space":                   "example.com%20",
		"NUL":                     "example.com%00",
		"line feed":               "example.com%0A",
		"encoded twice":           "example%252Ecom",
		"port encoded twice":      "example.com%253A80",
		"not UTF-8":               "example%FF.com",
		"invalid punycode":        "xn--a.example.com",
		"punycode of ASCII":       "xn--example-.com",
		"zero-width joiner":       "exa%E2%80%8Dmple.com",
		"port zero":               "example.com%3A0",
		"port leading zero":       "example.com%3A0443",
		"port too large":          "example.com%3A65536",
		"port empty":              "example.com%3A",
		"port signed":             "example.com%3A%2B443",
		"port not a number":       "example.com%3Ahttps",
		"two ports":               "example.com%3A80%3A443",
		"label of 64":             strings.Repeat("a", 64) + ".com",
		"name of 260":             strings.Repeat("abcd.", 51) + "abcde",
		"raw port":                "example.com:443%",
		"not percent-encoded":     "ex\u00e4mple.com",
		"slash as it is":          "example.com/path",
	} {
		refuseDID(t, name, "did:webvh:"+scid+":"+host)
	}
}

func TestPathsRefused(t *testing.T) {
	for name, path := range map[string]string{
		"traversal":            "..:..:admin",
		"traversal encoded":    "%2e%2E",
		"traversal half":       ".%2e:a",
		"encoded twice":        "%252e%252e",
		"one dot":              ".",
		"empty segment":        "a::b",
		"empty at the end":     "a:",
		"slash":                "a%2Fb",
		"slash lower case":     "a%2fb",
		"traversal with slash": "%2e%2e%2fadmin",
		"backslash":            "a%5Cb",
		"NUL":                  "a%00",
		"line feed":            "a%0Ab",
		"DEL":                  "a%7F",
		"C1 control":           "a%C2%85",
		"direction override":   "a%E2%80%AEb",
		"zero-width space":     "a%E2%80%8Bb",
		"not UTF-8":            "a%FF",
		"overlong slash":       "a%C0%AFb",
		"broken percent":       "a%2",
		"percent not hex":      "a%zz",
		"far too many":         strings.Repeat("a:", 40) + "a",
		"query":                "a?b",
		"fragment":             "a#b",
		"plain slash":          "a/b",
	} {
		refuseDID(t, name, "did:webvh:"+scid+":example.com:"+path)
	}
}

func TestSCIDsRefused(t *testing.T) {
	for name, s := range map[string]string{
		"other method":   "did:web:example.com",
		"upper case":     "did:WEBVH:" + scid + ":example.com",
		"no SCID":        "did:webvh:example.com",
		"SCID only":      "did:webvh:" + scid,
		"short":          "did:webvh:" + scid[:45] + ":example.com",
		"long":           "did:webvh:" + scid + "1:example.com",
		"not base58":     "did:webvh:Qm0000000000000000000000000000000000000000000000:example.com",
		"look-alike":     "did:webvh:QmXhVjFG6EBTosDastaaHMRypm2qSv4SMGctADsx878YuO:example.com",
		"another hash":   "did:webvh:" + strings.Repeat("1", 46) + ":example.com",
		"with multibase": "did:webvh:z" + scid + ":example.com",
		"placeholder":    "did:webvh:{SCID}:example.com",
		"traversal":      "did:webvh:" + scid + ":example.com:..:..:admin",
		"huge":           "did:webvh:" + scid + ":example.com:" + strings.Repeat("a", 1<<20),
		"space around":   " did:webvh:" + scid + ":example.com",
		"DID URL":        "did:webvh:" + scid + ":example.com#key-1",
		"empty":          "",
	} {
		refuseDID(t, name, s)
	}
}

// FuzzParse: a DID that is accepted points into the host it names and nowhere else, and its canonical form is stable.
func FuzzParse(f *testing.F) {
	for _, suffix := range []string{"example.com", "example.com%3A80:a:b", "%31.example.com", "a.b:%E7%94%A8", "127.0.0.1", "a.b:%2e%2e"} {
		f.Add("did:webvh:" + scid + ":" + suffix)
	}
	f.Fuzz(func(t *testing.T, s string) {
		location, err := webvh.Parse(s)
		if err != nil {
			return
		}
		rest, ok := strings.CutPrefix(location.LogURL(), "https://"+location.Host)
		if !ok || !strings.Contains(location.Host, ".") || strings.ContainsAny(location.Host, "/:@[]%?#\\") {
			t.Fatalf("%q points to %s", s, location.LogURL())
		}
		for segment := range strings.SplitSeq(rest, "/") {
			if segment == ".." || segment == "." || strings.ContainsAny(segment, "?#\\") {
				t.Fatalf("%q points to %s", s, location.LogURL())
			}
		}
		again, err := webvh.Parse(location.DID())
		if err != nil || again.DID() != location.DID() || again.LogURL() != location.LogURL() {
			t.Fatalf("%q becomes %q, %v", s, location.DID(), err)
		}
	})
}
