package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast"
	"holdfast/internal/pubkey"
	piv "holdfast/token/attestation"
)

// The bundles in testdata were made by custody on a SoftHSM2 token, swtpm and a virtual PIV card, for this nonce.
const testNonce = "nonce"

func bundles() []string {
	return []string{"pkcs11-resident", "pkcs11-wrapped", "pkcs11-secret", "tpm-resident", "tpm-wrapped", "piv"}
}

func load(t testing.TB, bundle string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata", bundle))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join("testdata", bundle, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// anchored returns what a verifier knows who trusts the device that made a bundle.
func anchored(t testing.TB, bundle string) *Options {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", bundle+".anchor.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	o := &Options{Nonce: []byte(testNonce)}
	if block.Type == "PUBLIC KEY" {
		o.TrustedAttestors = [][]byte{block.Bytes}
		return o
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	o.Roots = x509.NewCertPool()
	o.Roots.AddCert(root)
	return o
}

func wantIntegrity(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("%s: got %v, want ErrIntegrity", what, err)
	}
}

func TestBundlesHold(t *testing.T) {
	for _, bundle := range bundles() {
		files := load(t, bundle)
		r, err := Verify(files, nil)
		if err != nil || r.Anchored || len(r.Lines) < 3 || len(r.Warnings) == 0 || r.Name != bundle {
			t.Errorf("%s: %+v, %v", bundle, r, err)
		}
		o := anchored(t, bundle)
		o.ExpectPublic = r.Public
		r, err = Verify(files, o)
		if err != nil || !r.Anchored {
			t.Errorf("%s: %+v, %v", bundle, r, err)
		}
		if (r.Attestor == nil) != (r.Kind == piv.Kind) {
			t.Errorf("%s: the attestor is %v", bundle, r.Attestor)
		}
	}
}

func TestEveryBitCounts(t *testing.T) {
	for _, bundle := range bundles() {
		files := load(t, bundle)
		for name, data := range files {
			for at := range data {
				for bit := range 8 {
					data[at] ^= 1 << bit
					if _, err := Verify(files, nil); !errors.Is(err, holdfast.ErrIntegrity) ||
						!strings.Contains(err.Error(), name) && name != FileSums {
						t.Errorf("%s: %s with bit %d of byte %d changed: %v", bundle, name, bit, at, err)
					}
					data[at] ^= 1 << bit
				}
			}
		}
	}
}

func TestNewSumsDoNotHelp(t *testing.T) {
	for _, bundle := range bundles() {
		files, o := load(t, bundle), anchored(t, bundle)
		for name, data := range files {
			for at := 0; at < len(data) && name != FileSums; at += 3 {
				data[at] ^= 1 << (at % 8)
				files[FileSums] = sums(files)
				if _, err := Verify(files, o); err == nil {
					t.Errorf("%s: %s with bit %d of byte %d changed: accepted", bundle, name, at%8, at)
				}
				data[at] ^= 1 << (at % 8)
			}
		}
	}
}

func TestFilesMissingOrTooMany(t *testing.T) {
	for _, bundle := range bundles() {
		files := load(t, bundle)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			without := maps.Clone(files)
			delete(without, name)
			_, err := Verify(without, nil)
			wantIntegrity(t, bundle+" without "+name, err)
			without[FileSums] = sums(without)
			if name == FileSums || name == "ek.pub" { // the first is there again; the second a TPM need not show
				continue
			}
			if _, err := Verify(without, anchored(t, bundle)); err == nil {
				t.Errorf("%s without %s and with new sums: accepted", bundle, name)
			}
		}
		for _, name := range []string{"README", "a/b", "..", "-rf", ""} {
			more := maps.Clone(files)
			more[name] = []byte("more")
			_, err := Verify(more, nil)
			wantIntegrity(t, fmt.Sprintf("%s with %q", bundle, name), err)
			more[FileSums] = sums(more)
			_, err = Verify(more, nil)
			wantIntegrity(t, fmt.Sprintf("%s with %q and new sums", bundle, name), err)
		}
		large := maps.Clone(files)
		large["large"] = make([]byte, maxFile+1)
		large[FileSums] = sums(large)
		_, err := Verify(large, nil)
		wantIntegrity(t, "a large file", err)
		for i := range maxFiles {
			files[fmt.Sprint("f", i)] = nil
		}
		files[FileSums] = sums(files)
		_, err = Verify(files, nil)
		wantIntegrity(t, "many files", err)
	}
	_, err := Verify(nil, nil)
	wantIntegrity(t, "nothing", err)
}

func TestExpectations(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherSPKI, err := pubkey.MarshalSPKI(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, bundle := range bundles() {
		files := load(t, bundle)
		_, err := Verify(files, &Options{ExpectPublic: &other.PublicKey})
		wantIntegrity(t, bundle+": another key", err)
		_, err = Verify(files, &Options{Nonce: []byte("another")})
		wantIntegrity(t, bundle+": another nonce", err)
		if r, err := Verify(files, &Options{TrustedAttestors: [][]byte{otherSPKI}}); err != nil || r.Anchored {
			t.Errorf("%s: another attestor: %v, %v", bundle, r.Anchored, err)
		}
	}
	wrong := anchored(t, "piv").Roots
	for _, bundle := range []string{"tpm-resident", "tpm-wrapped"} {
		_, err = Verify(load(t, bundle), &Options{Roots: wrong})
		wantIntegrity(t, bundle+": another maker's root", err)
	}
	_, err = Verify(load(t, "piv"), &Options{Roots: x509.NewCertPool()})
	wantIntegrity(t, "piv: no root", err)
}

func TestStatementHasOneForm(t *testing.T) {
	files := load(t, "pkcs11-resident")
	original := string(files[FileStatement])
	for what, change := range map[string]func(string) string{
		"white space":            func(s string) string { return s + "\n" },
		"a member more":          func(s string) string { return `{"aaa":"",` + s[1:] },
		"a member twice":         func(s string) string { return `{"format":"holdfast-evidence-1",` + s[1:] },
		"a member less":          func(s string) string { return strings.Replace(s, `,"nonce":"6e6f6e6365"`, "", 1) },
		"an escape":              func(s string) string { return strings.Replace(s, "holdfast-evidence", `holdfast\u002devidence`, 1) },
		"another case":           func(s string) string { return strings.Replace(s, `"nonce":`, `"Nonce":`, 1) },
		"an unknown algorithm":   func(s string) string { return strings.Replace(s, `"ES256"`, `"ES257"`, 1) },
		"a lower case algorithm": func(s string) string { return strings.Replace(s, `"ES256"`, `"es256"`, 1) },
		"another algorithm":      func(s string) string { return strings.Replace(s, `"ES256"`, `"ES384"`, 1) },
		"a key without a half":   func(s string) string { return strings.Replace(s, `"ES256"`, `"A256GCM"`, 1) },
		"an upper case nonce":    func(s string) string { return strings.Replace(s, "6e6f6e6365", "6E6F6E6365", 1) },
		"a local time":           func(s string) string { return strings.ReplaceAll(s, `Z","nonce"`, `+00:00","nonce"`) },
		"an unknown residence":   func(s string) string { return strings.Replace(s, `"resident"`, `"cloud"`, 1) },
		"a short identifier":     func(s string) string { return strings.Replace(s, `"id":"`, `"id":"00`, 1) },
		"a line in the name":     func(s string) string { return strings.Replace(s, `"name":"`, `"name":"x\n✓ `, 1) },
		"a terminal's escape":    func(s string) string { return strings.Replace(s, `"purpose":"`, `"purpose":"\u001b[2J`, 1) },
		"a serial that turns":    func(s string) string { return strings.Replace(s, `"serial":"`, "\"serial\":\"\u202e", 1) },
		"no JSON":                func(string) string { return "hello" },
		"no object":              func(string) string { return "[]" },
	} {
		files[FileStatement] = []byte(change(original))
		if string(files[FileStatement]) == original {
			t.Errorf("%s: nothing was changed", what)
		}
		files[FileSums] = sums(files)
		_, err := Verify(files, nil)
		wantIntegrity(t, what, err)
	}
	for what, change := range map[string]string{"format": `"holdfast-evidence-2"`, "device": `"kind":"toaster"`} {
		s := strings.Replace(original, `"holdfast-evidence-1"`, change, 1)
		if what == "device" {
			s = strings.Replace(original, `"kind":"pkcs11"`, change, 1)
		}
		files[FileStatement] = []byte(s)
		files[FileSums] = sums(files)
		if _, err := Verify(files, nil); !errors.Is(err, holdfast.ErrUnsupported) {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

// resign changes the attributes of a bundle and signs them with another attestation key.
func resign(t *testing.T, bundle string, change func(map[string]any)) map[string][]byte {
	t.Helper()
	files := load(t, bundle)
	var a map[string]any
	if err := json.Unmarshal(files[fileAttributes], &a); err != nil {
		t.Fatal(err)
	}
	change(a)
	text, err := json.Marshal(a) // canonical for what is in there: the tests above say so
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	files[fileAttributes] = text
	if files[fileSignature], err = ecdsa.SignASN1(rand.Reader, key, holdfast.ES256.Digest(text)); err != nil {
		t.Fatal(err)
	}
	if files[fileAttestor], err = pubkey.MarshalSPKI(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	files[FileSums] = sums(files)
	return files
}

func TestAttributesOfAnUnsafeKey(t *testing.T) {
	for _, bundle := range []string{"pkcs11-resident", "pkcs11-wrapped", "pkcs11-secret"} {
		if _, err := Verify(resign(t, bundle, func(map[string]any) {}), nil); err != nil {
			t.Fatalf("%s signed anew: %v", bundle, err)
		}
		list := residentAttributes[:]
		if bundle == "pkcs11-wrapped" {
			list = wrappedAttributes[:]
		}
		for _, r := range list {
			_, err := Verify(resign(t, bundle, func(a map[string]any) { a[r.name] = !r.value }), nil)
			wantIntegrity(t, fmt.Sprintf("%s with %s %t", bundle, r.name, !r.value), err)
			_, err = Verify(resign(t, bundle, func(a map[string]any) { delete(a, r.name) }), nil)
			wantIntegrity(t, fmt.Sprintf("%s without %s", bundle, r.name), err)
		}
		for name, value := range map[string]any{
			"distrust": "the module wraps what it must not", "self_test_03_escaped": true, "challenge": strings.Repeat("0", 64), "ref": "pkcs11:id=%01",
			"algorithm": "ES512", "residence": "elsewhere", "public_key": "", "token_serial": "1", "CKA_CLASS": "0x2", "number": 1.0, "list": []any{},
			"CKA_SENSITIVE": "true",
		} {
			files := resign(t, bundle, func(a map[string]any) { a[name] = value })
			if name == "public_key" && bundle == "pkcs11-secret" {
				continue // a secret key has none
			}
			_, err := Verify(files, nil)
			wantIntegrity(t, fmt.Sprintf("%s with %s %v", bundle, name, value), err)
		}
		_, err := Verify(resign(t, bundle, func(a map[string]any) { delete(a, "distrust") }), nil)
		wantIntegrity(t, bundle+" without distrust", err)
	}
	for _, c := range []struct{ name, warning string }{
		{"unwrap_template_honoured", "can take the key out"}, {"kek_CKA_TRUSTED", "security officer"},
	} {
		r, err := Verify(resign(t, "pkcs11-wrapped", func(a map[string]any) { a[c.name] = false }), nil)
		if err != nil || !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, c.warning) }) {
			t.Errorf("%s: %q, %v", c.name, r.Warnings, err)
		}
	}
}

func TestAttributesHaveOneForm(t *testing.T) {
	files := load(t, "pkcs11-resident")
	text := files[fileAttributes]
	for what, changed := range map[string][]byte{
		"white space": append(bytes.Clone(text), '\n'),
		"no object":   []byte(`"x"`), "empty": nil, "nothing": []byte("null"),
	} {
		if _, err := parseAttributes(changed); what != "nothing" && err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestCardAndSlotOfTheStatement(t *testing.T) {
	v := &verification{claim: &claim{Statement: Statement{Key: Key{Ref: "piv:serial=5;slot=9c;id=00"}}}}
	for _, c := range []struct {
		serial uint32
		slot   string
		ok     bool
	}{{5, "9c", true}, {0, "", true}, {6, "9c", false}, {5, "9a", false}} {
		if err := v.pivPlace(piv.Report{Serial: c.serial, Slot: c.slot}); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestBuildRefusesStrangeEvidence(t *testing.T) {
	s := Statement{Device: Device{Kind: "piv"}}
	for what, e := range map[string]*holdfast.Evidence{
		"none":                 nil,
		"another kind":         {Kind: attributesKind},
		"a file of the bundle": {Kind: piv.Kind, Files: map[string][]byte{FileStatement: nil}},
		"the sums":             {Kind: piv.Kind, Files: map[string][]byte{FileSums: nil}},
		"a path":               {Kind: piv.Kind, Files: map[string][]byte{"../x": nil}},
	} {
		if _, err := Build(s, func([]byte) (*holdfast.Evidence, error) { return e, nil }); !errors.Is(err, holdfast.ErrInternal) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Build(s, func([]byte) (*holdfast.Evidence, error) { return nil, holdfast.ErrUnavailable }); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Error(err)
	}
}

// FuzzVerify puts another file into a bundle, with new sums. Whatever it is, a verifier who knows the device accepts it
// only when it is the file that was there.
func FuzzVerify(f *testing.F) {
	var all []map[string][]byte
	var options []*Options
	for i, bundle := range bundles() {
		files := load(f, bundle)
		all = append(all, files)
		options = append(options, anchored(f, bundle))
		for j, name := range slices.Sorted(maps.Keys(files)) {
			f.Add(uint8(i), uint8(j), files[name])
		}
	}
	f.Fuzz(func(t *testing.T, bundle, file uint8, data []byte) {
		i := int(bundle) % len(all)
		files := maps.Clone(all[i])
		names := slices.Sorted(maps.Keys(files))
		name := names[int(file)%len(names)]
		same := bytes.Equal(files[name], data)
		files[name] = data
		if name != FileSums {
			files[FileSums] = sums(files)
		}
		_, err := Verify(files, options[i])
		if (err == nil) != same {
			t.Errorf("%s of %s: %v", name, bundles()[i], err)
		}
		if err != nil && !errors.Is(err, holdfast.ErrIntegrity) && !errors.Is(err, holdfast.ErrUnsupported) {
			t.Errorf("%s of %s: the code of %v", name, bundles()[i], err)
		}
	})
}
