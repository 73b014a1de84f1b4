package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast"
	"holdfast/internal/pubkey"

	"github.com/gowebpki/jcs"
)

// attributesKind is the evidence of PKCS#11 tokens: what the module says of a key, signed in the token.
const attributesKind = "pkcs11-attributes"

// The files of that evidence.
const (
	fileAttributes = "attributes.json" // a flat JSON object in the form of RFC 8785; values are strings and booleans
	fileSignature  = "attributes.sig"  // DER ECDSA-Sig-Value over the SHA-256 of attributes.json
	fileAttestor   = "attestor.der"    // SubjectPublicKeyInfo of the P-256 key that signed
)

// required is what an attribute must be for a key to be one that cannot leave its token.
type required struct {
	name  string
	value bool
}

// For a key that lives in the token: generated there (CKA_LOCAL), and never otherwise than it is now (PKCS #11 v3.0,
// section 4.9).
var residentAttributes = [...]required{
	{"CKA_TOKEN", true}, {"CKA_SENSITIVE", true}, {"CKA_EXTRACTABLE", false},
	{"CKA_LOCAL", true}, {"CKA_ALWAYS_SENSITIVE", true}, {"CKA_NEVER_EXTRACTABLE", true},
}

// For a wrapped key, which has no history: what it is while it is in the token, where its blob comes from, and that the
// key it is wrapped under lives in the token.
var wrappedAttributes = [...]required{
	{"wrapped_here", true}, {"CKA_SENSITIVE", true}, {"CKA_EXTRACTABLE", false},
	{"kek_CKA_TOKEN", true}, {"kek_CKA_SENSITIVE", true}, {"kek_CKA_EXTRACTABLE", false},
	{"kek_CKA_LOCAL", true}, {"kek_CKA_ALWAYS_SENSITIVE", true}, {"kek_CKA_NEVER_EXTRACTABLE", true},
	{"kek_CKA_DECRYPT", false}, // a key that wraps and decrypts gives every wrapped key away
}

// attributes checks what a PKCS#11 module says of a key.
func (v *verification) attributes() error {
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		if name != fileAttributes && name != fileSignature && name != fileAttestor {
			return broken(name, "evidence of the kind %s has no such file", attributesKind)
		}
	}
	for _, name := range []string{fileAttributes, fileSignature, fileAttestor} {
		if len(v.files[name]) == 0 {
			return broken(name, "the file is missing or empty")
		}
	}
	if err := v.attributesSignature(); err != nil {
		return err
	}
	a, err := parseAttributes(v.files[fileAttributes])
	if err != nil {
		return err
	}
	for _, step := range []func(map[string]any) error{v.attributesSubject, v.attributesTrials, v.attributesProtection} {
		if err := step(a); err != nil {
			return err
		}
	}
	return nil
}

// attributesSignature checks the signature of the token's attestation key.
func (v *verification) attributesSignature() error {
	der := v.files[fileAttestor]
	attestor, err := pubkey.ParseSPKIFor(holdfast.ES256, der)
	if err != nil {
		return broken(fileAttestor, "%w", err)
	}
	text := v.files[fileAttributes]
	if !ecdsa.VerifyASN1(attestor.(*ecdsa.PublicKey), holdfast.ES256.Digest(text), v.files[fileSignature]) {
		return broken(fileSignature, "the signature over %s does not verify under %s", fileAttributes, fileAttestor)
	}
	v.report.Attestor = attestor
	v.report.Anchored = v.attested(der)
	if v.report.Anchored {
		v.say("An attestation key that you named signed what the token's module says of the key.")
	} else {
		v.say("An attestation key (%s) signed what the token's module says of the key.", fileAttestor)
	}
	v.warn("PKCS#11 has no signature of a maker: " +
		"a module that lies is believed, as far as its self-test does not show it.")
	return nil
}

// parseAttributes reads a flat JSON object in its one form.
func parseAttributes(text []byte) (map[string]any, error) {
	canonical, err := jcs.Transform(text)
	if err != nil || !bytes.Equal(canonical, text) {
		return nil, broken(fileAttributes, "it is not JSON in the canonical form of RFC 8785")
	}
	var a map[string]any
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, broken(fileAttributes, "it is no JSON object: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		switch a[name].(type) {
		case string, bool:
		default:
			return nil, broken(fileAttributes, "%s is neither a text nor true nor false", name)
		}
	}
	return a, nil
}

// attributesSubject checks that the attributes are of the key in the statement, and were read for it.
func (v *verification) attributesSubject(a map[string]any) error {
	for _, want := range [...]struct{ name, value string }{
		{"challenge", hex.EncodeToString(v.challenge)}, {"algorithm", v.Key.Algorithm}, {"ref", v.Key.Ref},
		{"residence", v.Key.Residence}, {"public_key", v.Key.Public}, {"token_serial", v.Device.Serial},
	} {
		if got, ok := a[want.name].(string); !ok || got != want.value {
			return broken(fileAttributes, "%s is %v, and the statement has %q", want.name, a[want.name], want.value)
		}
	}
	v.say("They were read for this statement, of this key, on the token with serial number %s.", v.Device.Serial)
	return nil
}

// attributesTrials checks what the module's self-test found.
func (v *verification) attributesTrials(a map[string]any) error {
	if attempt := escapes(a, "self_test_"); attempt != "" {
		return broken(fileAttributes,
			"the module gave a protected key away in its self-test (%s): keys on it cannot be believed to stay", attempt)
	}
	if distrust, ok := a["distrust"].(string); !ok || distrust != "" {
		return broken(fileAttributes, "keys on this module cannot be believed to stay: %v", a["distrust"])
	}
	trials := 0
	for name := range a {
		if strings.HasPrefix(name, "self_test_") && strings.HasSuffix(name, "_escaped") {
			trials++
		}
	}
	if trials == 0 {
		v.warn("The module's self-test was not made.")
		return nil
	}
	v.say("In %d attempts to get a protected test key out of the token, the module gave nothing away.", trials)
	return nil
}

// attributesProtection checks that the key cannot leave the token.
func (v *verification) attributesProtection(a map[string]any) error {
	list := residentAttributes[:]
	if v.Key.Residence == holdfast.Wrapped.String() {
		list = wrappedAttributes[:]
	}
	for _, r := range list {
		if got, ok := a[r.name].(bool); !ok || got != r.value {
			return broken(fileAttributes, "%s is %v and has to be %t: the key may have been, or may get, outside",
				r.name, a[r.name], r.value)
		}
	}
	class, use := "0x3", "CKA_SIGN" // CKO_PRIVATE_KEY
	switch v.algorithm.Use() {
	case holdfast.UseAgree:
		use = "CKA_DERIVE"
	case holdfast.UseEncrypt:
		class, use = "0x4", "CKA_DECRYPT" // CKO_SECRET_KEY
	}
	if a["CKA_CLASS"] != class || a[use] != true {
		return broken(fileAttributes, "the object is not one that %s uses (CKA_CLASS %v, %s %v)", v.algorithm,
			a["CKA_CLASS"], use, a[use])
	}
	if v.Key.Residence != holdfast.Wrapped.String() {
		v.say("The key was generated in the token (CKA_LOCAL), cannot leave it, and never could " +
			"(CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE).")
		return nil
	}
	v.say("The key was generated in the token and wrapped under a key that was too, and that cannot leave it and never could.")
	if a["kek_CKA_TRUSTED"] != true {
		v.warn("The wrapping key is not marked as trusted by the token's security officer.")
	}
	if a["unwrap_template_honoured"] != true || escapes(a, "unwrap_test_") != "" {
		v.warn("This module unwraps keys as it is told: " +
			"whoever has the token's PIN and the wrapped key can take the key out.")
	}
	return nil
}

// escapes returns the first attempt of a self-test by which a key got out, in words; empty when none did.
func escapes(a map[string]any, prefix string) string {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, "_escaped") && a[name] != false {
			return fmt.Sprint(a[strings.TrimSuffix(name, "escaped")+"attempt"])
		}
	}
	return ""
}
