package dataintegrity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/did/dataintegrity"
	"holdfast/internal/pubkey"
	"holdfast/internal/softkey"
	"holdfast/internal/vectors"

	"github.com/mr-tron/base58"
)

const credential = `{"@context":["https://www.w3.org/ns/credentials/v2"],"type":["VerifiableCredential"],"issuer":"did:example:1","n":1}`

func edSigner(private ed25519.PrivateKey) dataintegrity.SignFunc {
	return func(_ context.Context, message []byte) ([]byte, error) { return ed25519.Sign(private, message), nil }
}

func ecSigner(t testing.TB, a holdfast.Algorithm, private *ecdsa.PrivateKey) dataintegrity.SignFunc {
	t.Helper()
	return func(_ context.Context, message []byte) ([]byte, error) {
		der, err := ecdsa.SignASN1(rand.Reader, private, a.Digest(message))
		if err != nil {
			return nil, err
		}
		return pubkey.RawSignature(a, der)
	}
}

type keyCase struct {
	name string
	pub  crypto.PublicKey
	sign dataintegrity.SignFunc
}

func keyCases(t testing.TB) []keyCase {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cases := []keyCase{{"Ed25519", public, edSigner(private)}}
	for a, curve := range map[holdfast.Algorithm]elliptic.Curve{holdfast.ES256: elliptic.P256(), holdfast.ES384: elliptic.P384()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, keyCase{string(a), k.Public(), ecSigner(t, a, k)})
	}
	return cases
}

func options() dataintegrity.Options {
	return dataintegrity.Options{
		VerificationMethod: "did:example:1#key-1", Created: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
	}
}

func secure(t testing.TB, k keyCase, o dataintegrity.Options) []byte {
	t.Helper()
	proof, err := dataintegrity.Create(t.Context(), []byte(credential), k.pub, o, k.sign)
	if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	secured, err := dataintegrity.Attach([]byte(credential), proof)
	if err != nil {
		t.Fatal(err)
	}
	return secured
}

func TestRoundTrip(t *testing.T) {
	for _, k := range keyCases(t) {
		o := options()
		o.Purpose, o.Challenge, o.Domain = did.Authentication, "abc", "verifier.example"
		o.Expires = o.Created.Add(time.Hour)
		secured := secure(t, k, o)
		proof, err := dataintegrity.Verify(secured, k.pub)
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		if proof.Challenge != "abc" || proof.Domain != "verifier.example" || proof.ProofPurpose != "authentication" ||
			proof.Created != "2026-01-31T12:00:00Z" || proof.Expires != "2026-01-31T13:00:00Z" || proof.VerificationMethod != o.VerificationMethod {
			t.Errorf("%s: proof %+v", k.name, proof)
		}
	}
}

// Members in another order, white space and escapes are the same document; anything else is another one.
func TestTampering(t *testing.T) {
	for _, k := range keyCases(t) {
		secured := string(secure(t, k, options()))
		for name, text := range map[string]string{
			"white space": strings.Replace(secured, `"n":1`, "\n\t\"n\" : 1", 1),
			"number form": strings.Replace(secured, `"n":1`, `"n":1.0`, 1),
			"escape":      strings.Replace(secured, `did:example:1"`, `did\u003aexample:1"`, 1),
			"context":     strings.Replace(secured, `"@context":["https://www.w3.org/ns/credentials/v2"],"issuer"`, `"@context":["https://www.w3.org/ns/credentials/v2","urn:more"],"issuer"`, 1),
		} {
			if _, err := dataintegrity.Verify([]byte(text), k.pub); err != nil {
				t.Errorf("%s, %s: %v", k.name, name, err)
			}
		}
		for name, text := range map[string]string{
			"value":          strings.Replace(secured, `"n":1`, `"n":2`, 1),
			"member added":   strings.Replace(secured, `"n":1`, `"n":1,"m":1`, 1),
			"member removed": strings.Replace(secured, `"n":1,`, ``, 1),
			"purpose":        strings.Replace(secured, "assertionMethod", "authentication", 1),
			"created":        strings.Replace(secured, "12:00:00Z", "12:00:01Z", 1),
			"method":         strings.Replace(secured, "#key-1", "#key-2", 1),
			"proof member":   strings.Replace(secured, `"proofPurpose"`, `"nonce":"x","proofPurpose"`, 1),
			"expires":        strings.Replace(secured, `"proofPurpose"`, `"expires":"2036-01-31T12:00:00Z","proofPurpose"`, 1),
			"context":        strings.ReplaceAll(secured, "credentials/v2", "credentials/v3"),
		} {
			if text == secured {
				t.Fatalf("%s does not change %s", name, secured)
			}
			if _, err := dataintegrity.Verify([]byte(text), k.pub); !errors.Is(err, holdfast.ErrIntegrity) {
				t.Errorf("%s, %s: %v", k.name, name, err)
			}
		}
		other := keyCases(t)
		for _, o := range other {
			_, err := dataintegrity.Verify([]byte(secured), o.pub)
			if !errors.Is(err, holdfast.ErrIntegrity) && !errors.Is(err, holdfast.ErrInvalid) {
				t.Errorf("%s under another %s: %v", k.name, o.name, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	k := keyCases(t)[0]
	secured := string(secure(t, k, options()))
	for name, c := range map[string]struct {
		text string
		code holdfast.Code
	}{
		"not JSON":          {"x", holdfast.ErrInvalid},
		"array":             {"[]", holdfast.ErrInvalid},
		"no proof":          {credential, holdfast.ErrInvalid},
		"duplicate":         {strings.Replace(secured, `"n":1`, `"n":1,"n":1`, 1), holdfast.ErrInvalid},
		"proof null":        {`{"proof":null}`, holdfast.ErrInvalid},
		"proof empty":       {`{"proof":{}}`, holdfast.ErrInvalid},
		"type":              {strings.Replace(secured, "DataIntegrityProof", "Ed25519Signature2020", 1), holdfast.ErrUnsupported},
		"suite":             {strings.Replace(secured, "eddsa-jcs-2022", "eddsa-rdfc-2022", 1), holdfast.ErrUnsupported},
		"suite of ECDSA":    {strings.Replace(secured, "eddsa-jcs-2022", "ecdsa-jcs-2019", 1), holdfast.ErrInvalid},
		"created no time":   {strings.Replace(secured, "2026-01-31T12:00:00Z", "today", 1), holdfast.ErrInvalid},
		"value in base64":   {strings.Replace(secured, `"proofValue":"z`, `"proofValue":"u`, 1), holdfast.ErrInvalid},
		"value not base58":  {strings.Replace(secured, `"proofValue":"z`, `"proofValue":"z0`, 1), holdfast.ErrInvalid},
		"value huge":        {strings.Replace(secured, `"proofValue":"z`, `"proofValue":"z`+strings.Repeat("1", 1000), 1), holdfast.ErrInvalid},
		"challenge a list":  {strings.Replace(secured, `"proofPurpose"`, `"challenge":[],"proofPurpose"`, 1), holdfast.ErrInvalid},
		"document too long": {strings.Replace(secured, `"n":1`, `"n":"`+strings.Repeat("x", 1<<20)+`"`, 1), holdfast.ErrInvalid},
	} {
		if _, err := dataintegrity.Verify([]byte(c.text), k.pub); !errors.Is(err, c.code) {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(secured), &members); err != nil {
		t.Fatal(err)
	}
	members["proof"] = append(append([]byte("["), members["proof"]...), ']')
	listed, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dataintegrity.Verify(listed, k.pub); !errors.Is(err, holdfast.ErrUnsupported) {
		t.Errorf("a list of one proof: %v", err)
	}
}

func TestCreateRefused(t *testing.T) {
	k := keyCases(t)[0]
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	never := func(context.Context, []byte) ([]byte, error) {
		t.Error("the key is asked to sign")
		return nil, errors.New("asked")
	}
	for name, c := range map[string]struct {
		document string
		pub      crypto.PublicKey
		method   string
		code     holdfast.Code
	}{
		"RSA":           {credential, big.Public(), "did:example:1#k", holdfast.ErrUnsupported},
		"no key":        {credential, nil, "did:example:1#k", holdfast.ErrUnsupported},
		"no method":     {credential, k.pub, "", holdfast.ErrInvalid},
		"not JSON":      {"x", k.pub, "did:example:1#k", holdfast.ErrInvalid},
		"an array":      {"[]", k.pub, "did:example:1#k", holdfast.ErrInvalid},
		"duplicates":    {`{"a":1,"a":1}`, k.pub, "did:example:1#k", holdfast.ErrInvalid},
		"already a one": {`{"proof":{}}`, k.pub, "did:example:1#k", holdfast.ErrInvalid},
	} {
		_, err := dataintegrity.Create(t.Context(), []byte(c.document), c.pub, dataintegrity.Options{VerificationMethod: c.method}, never)
		if !errors.Is(err, c.code) {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
	other := keyCases(t)[0]
	if _, err := dataintegrity.Create(t.Context(), []byte(credential), k.pub, options(), other.sign); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("signed by another key: %v", err)
	}
}

func TestExpiredAt(t *testing.T) {
	o := options()
	o.Expires = o.Created.Add(time.Hour)
	k := keyCases(t)[0]
	proof, err := dataintegrity.Create(t.Context(), []byte(credential), k.pub, o, k.sign)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(proof)
	if err != nil {
		t.Fatal(err)
	}
	received, err := dataintegrity.Receive(text)
	if err != nil {
		t.Fatal(err)
	}
	if received.ExpiredAt(o.Created) || !received.ExpiredAt(o.Expires) {
		t.Error("a proof expires when it says")
	}
}

// The published vectors, down to the combined hash that is signed.
func TestVectors(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	for folder, suffix := range map[string]string{"eddsa-jcs-2022": "JCS", "ecdsa-jcs-2019-p256": "JCSECDSAP256"} {
		secured := vectors.Read(t, dir, "vc-di/"+folder+"/signed"+suffix+".json")
		var parts struct{ Proof dataintegrity.Proof }
		if err := json.Unmarshal(secured, &parts); err != nil {
			t.Fatal(err)
		}
		_, multikey, _ := strings.Cut(parts.Proof.VerificationMethod, "#")
		pub, err := pubkey.ParseMultikey(multikey)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dataintegrity.Verify(secured, pub); err != nil {
			t.Errorf("%s: %v", folder, err)
		}
		unsecured := vectors.Read(t, dir, "vc-di/"+folder+"/canonDoc"+suffix+".txt")
		checkHash(t, unsecured, parts.Proof, pub, strings.TrimSpace(string(vectors.Read(t, dir, "vc-di/"+folder+"/combinedHash"+suffix+".txt"))))
	}
}

// checkHash makes the proof again with the published signature, and compares what was to be signed.
func checkHash(t *testing.T, document []byte, published dataintegrity.Proof, pub crypto.PublicKey, want string) {
	t.Helper()
	created, err := did.ParseTime(published.Created)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := dataintegrity.Create(t.Context(), document, pub,
		dataintegrity.Options{VerificationMethod: published.VerificationMethod, Created: created},
		func(_ context.Context, message []byte) ([]byte, error) {
			if got := hex.EncodeToString(message); got != want {
				t.Errorf("combined hash %s, want %s", got, want)
			}
			return base58.Decode(published.ProofValue[1:])
		})
	if err != nil {
		t.Fatal(err)
	}
	if proof.ProofValue != published.ProofValue {
		t.Errorf("proofValue %s, want %s", proof.ProofValue, published.ProofValue)
	}
}

// What the vectors teach, for when they are elsewhere: W3C's Alumni Credential, its key and the combined hash.
func TestRestatedVector(t *testing.T) {
	const (
		document = `{"@context":["https://www.w3.org/ns/credentials/v2","https://www.w3.org/ns/credentials/examples/v2"],` +
			`"credentialSubject":{"alumniOf":"The School of Examples","id":"did:example:abcdefgh"},` +
			`"description":"A minimum viable example of an Alumni Credential.","id":"urn:uuid:58172aac-d8ba-11ed-83dd-0b3aef56cc33",` +
			`"issuer":"https://vc.example/issuers/5678","name":"Alumni Credential","type":["VerifiableCredential","AlumniCredential"],` +
			`"validFrom":"2023-01-01T00:00:00Z"}`
		multikey = "z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"
		hash     = "66ab154f5c2890a140cb8388a22a160454f80575f6eae09e5a097cabe539a1db" +
			"59b7cb6251b8991add1ce0bc83107e3db9dbbab5bd2c28f687db1a03abc92f19"
	)
	pub, err := pubkey.ParseMultikey(multikey)
	if err != nil {
		t.Fatal(err)
	}
	checkHash(t, []byte(document), dataintegrity.Proof{
		Created: "2023-02-24T23:36:38Z", VerificationMethod: "did:key:" + multikey + "#" + multikey,
		ProofValue: "z2HnFSSPPBzR36zdDgK8PbEHeXbR56YF24jwMpt3R1eHXQzJDMWS93FCzpvJpwTWd3GAVFuUfjoJdcnTMuVor51aX",
	}, pub, hash)
}

func FuzzVerify(f *testing.F) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	k := keyCase{"Ed25519", private.Public(), edSigner(private)}
	good := secure(f, k, options())
	canonical, err := did.Canonicalize(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := dataintegrity.Verify(text, k.pub); err != nil {
			return
		}
		// Only spellings of the one document that was signed verify, save for contexts that were added.
		same, err := did.Canonicalize(text)
		if err != nil {
			t.Fatal(err)
		}
		if string(same) != string(canonical) && !strings.Contains(string(same), `"https://www.w3.org/ns/credentials/v2",`) {
			t.Fatalf("%s verifies", text)
		}
	})
}

func Example() {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	sign := func(_ context.Context, message []byte) ([]byte, error) { return ed25519.Sign(private, message), nil }
	document := []byte(`{"issuer":"did:example:1","claim":"I was here"}`)
	proof, err := dataintegrity.Create(context.Background(), document, private.Public(), dataintegrity.Options{
		VerificationMethod: "did:example:1#key-1", Created: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
	}, sign)
	if err != nil {
		fmt.Println(err)
		return
	}
	secured, err := dataintegrity.Attach(document, proof)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = dataintegrity.Verify(secured, private.Public())
	fmt.Println(proof.Cryptosuite, err)
	// Output: eddsa-jcs-2022 <nil>
}

// TestSignWith has keys of a device sign, of each suite and curve.
func TestSignWith(t *testing.T) {
	device, err := softkey.Open(t.Context(), softkey.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, a := range []holdfast.Algorithm{holdfast.EdDSA, holdfast.ES256, holdfast.ES384} {
		key, err := device.Generate(t.Context(), holdfast.KeySpec{Label: string(a), Algorithm: a})
		if err != nil {
			t.Fatal(err)
		}
		proof, err := dataintegrity.Create(t.Context(), []byte(credential), key.Public(), options(), dataintegrity.SignWith(key))
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		secured, err := dataintegrity.Attach([]byte(credential), proof)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dataintegrity.Verify(secured, key.Public()); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}
