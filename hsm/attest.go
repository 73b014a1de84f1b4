//go:build cgo && !nopkcs11

package hsm

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// evidenceKind is Evidence.Kind of this package.
const evidenceKind = "pkcs11-attributes"

// attested are the attributes that evidence shows, where the module has them.
var attested = [...]struct {
	kind uint
	name string
	flag bool // a CK_BBOOL, else a CK_ULONG
}{
	{pkcs11.CKA_CLASS, "CKA_CLASS", false},
	{pkcs11.CKA_KEY_TYPE, "CKA_KEY_TYPE", false},
	{pkcs11.CKA_KEY_GEN_MECHANISM, "CKA_KEY_GEN_MECHANISM", false},
	{pkcs11.CKA_TOKEN, "CKA_TOKEN", true},
	{pkcs11.CKA_PRIVATE, "CKA_PRIVATE", true},
	{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE", true},
	{pkcs11.CKA_LOCAL, "CKA_LOCAL", true},
	{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", true},
	{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", true},
	{pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", true},
	{pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", true},
	{pkcs11.CKA_ALWAYS_AUTHENTICATE, "CKA_ALWAYS_AUTHENTICATE", true},
	{pkcs11.CKA_WRAP_WITH_TRUSTED, "CKA_WRAP_WITH_TRUSTED", true},
	{pkcs11.CKA_SIGN, "CKA_SIGN", true},
	{pkcs11.CKA_DERIVE, "CKA_DERIVE", true},
	{pkcs11.CKA_DECRYPT, "CKA_DECRYPT", true},
	{pkcs11.CKA_WRAP, "CKA_WRAP", true},
	{pkcs11.CKA_UNWRAP, "CKA_UNWRAP", true},
}

// statement is a flat JSON object. Values are strings, booleans and integers below 2^53.
type statement map[string]any

// encode returns the statement in the one form of RFC 8785: encoding/json sorts the names, which are ASCII, and writes
// no white space.
func (st statement) encode() ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any(st)); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Attest returns what the module says about the key, signed in the token. Kind is "pkcs11-attributes"; Files are
//
//	attributes.json  a flat JSON object in the form of RFC 8785: challenge (hexadecimal), algorithm, ref, residence, public_key
//	                 (base64 of the SubjectPublicKeyInfo, empty for a secret key), module_… and token_…, one CKA_… for each
//	                 attribute the module has, self_test_… with the outcome of each attempt to export a sacrificial
//	                 key, distrust; for wrapped keys also kek_CKA_…, kek_id, wrap_mechanism, wrapped_here,
//	                 unwrap_template_honoured, and unwrap_test_… with the outcome of each attempt to unwrap a key so that it
//	                 can be exported
//	attributes.sig   DER ECDSA-Sig-Value over the SHA-256 of attributes.json
//	attestor.der     SubjectPublicKeyInfo of the P-256 key that signed, which lives on the same token, is labelled
//	                 "holdfast attestation", is made at first need, and signs nothing else
//
// What this proves is modest: whoever could log in to this token through Holdfast, at the time of the challenge, was told
// these things by the module. PKCS#11 has no signature of the manufacturer; a module that lies is believed, as far as
// the self-test does not catch it.
func (k *residentKey) Attest(ctx context.Context, challenge []byte) (*holdfast.Evidence, error) {
	e, err := k.attest(ctx, challenge, nil)
	return e, failure("attest", k.ref, err)
}

// Attest is like that of a resident key. The attributes are those of the key as it was unwrapped for the purpose, which
// has no history: CKA_LOCAL, CKA_ALWAYS_SENSITIVE and CKA_NEVER_EXTRACTABLE are false. That the key was generated on
// this token is said by the MAC on its blob, which only Generate makes and which is checked first: wrapped_here.
func (k *wrappedKey) Attest(ctx context.Context, challenge []byte) (*holdfast.Evidence, error) {
	e, err := k.attest(ctx, challenge, k)
	return e, failure("attest", k.ref, err)
}

func (k *key) attest(ctx context.Context, challenge []byte, wrapped *wrappedKey) (*holdfast.Evidence, error) {
	if len(challenge) != 32 {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "a challenge has 32 bytes, not %d", len(challenge))
	}
	attestor, err := k.b.attestor(ctx)
	if err != nil {
		return nil, fmt.Errorf("the attestation key: %w", err)
	}
	spki, err := encodeSPKI(k.public)
	if err != nil {
		return nil, err
	}
	st, err := ask(ctx, k.b, func(s *session) (statement, error) {
		st := statement{
			"algorithm": string(k.algorithm), "challenge": hex.EncodeToString(challenge), "ref": string(k.ref),
			"public_key": base64.StdEncoding.EncodeToString(spki), "residence": holdfast.Resident.String(),
		}
		return st, k.state(s, st, wrapped)
	})
	if err != nil {
		return nil, err
	}
	text, err := st.encode()
	if err != nil {
		return nil, err
	}
	signature, err := attestor.Sign(ctx, attestor.algorithm.Digest(text), nil)
	if err != nil {
		return nil, fmt.Errorf("sign the evidence: %w", err)
	}
	signer, err := encodeSPKI(attestor.public)
	if err != nil {
		return nil, err
	}
	return &holdfast.Evidence{Kind: evidenceKind, Files: map[string][]byte{
		"attributes.json": text, "attributes.sig": signature, "attestor.der": signer,
	}}, nil
}

// state reads the attributes of the key, and of its KEK if it has one.
func (k *key) state(s *session, st statement, wrapped *wrappedKey) error {
	h, release, err := k.find(s)
	if err != nil {
		return err
	}
	defer release(s)
	s.c.profile.state(st)
	if err := s.stateModule(st); err != nil {
		return err
	}
	if err := s.stateAttributes(st, "", h); err != nil || wrapped == nil {
		return err
	}
	parsed, err := parseBlob(wrapped.encoded)
	if err != nil {
		return err
	}
	kek, err := s.wrappingKey(parsed.Body.KEK)
	if err != nil {
		return err
	}
	st["residence"] = holdfast.Wrapped.String()
	st["wrapped_here"] = wrapped.genuine.Load()
	st["wrap_mechanism"] = mechanismName(uint(parsed.Body.Mechanism))
	st["kek_id"] = hex.EncodeToString(parsed.Body.KEK)
	st["kek_CKA_TRUSTED"] = kek.trusted
	st["unwrap_template_honoured"] = kek.locked
	st.addTrials("unwrap_test", s.c.profile.loosenings)
	return s.stateAttributes(st, "kek_", kek.kek)
}

func (s *session) stateAttributes(st statement, prefix string, h pkcs11.ObjectHandle) error {
	types := make([]uint, len(attested))
	for i, a := range attested {
		types[i] = a.kind
	}
	values, err := s.read(h, types...)
	if err != nil {
		return err
	}
	for _, a := range attested {
		if v, ok := values.flag(a.kind); ok && a.flag {
			st[prefix+a.name] = v
		}
		if v, ok := values.ulong(a.kind); ok && !a.flag {
			st[prefix+a.name] = "0x" + strconv.FormatUint(uint64(v), 16) // CK_UNAVAILABLE_INFORMATION is no JSON number
		}
	}
	return nil
}

// stateModule says which module and token this is.
func (s *session) stateModule(st statement) error {
	info, err := s.p11.GetInfo()
	if err != nil {
		return fmt.Errorf("C_GetInfo: %w", err)
	}
	token, err := s.p11.GetTokenInfo(s.c.slot)
	if err != nil {
		return fmt.Errorf("C_GetTokenInfo: %w", err)
	}
	version := func(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
	st["module_manufacturer"] = printable(info.ManufacturerID)
	st["module_description"] = printable(info.LibraryDescription)
	st["module_version"] = version(info.LibraryVersion)
	st["module_cryptoki"] = version(info.CryptokiVersion)
	st["token_label"] = printable(token.Label)
	st["token_manufacturer"] = printable(token.ManufacturerID)
	st["token_model"] = printable(token.Model)
	st["token_serial"] = printable(token.SerialNumber)
	st["token_hardware"] = version(token.HardwareVersion)
	st["token_firmware"] = version(token.FirmwareVersion)
	return nil
}

// printable returns a module's text without padding, and quoted where it holds what JSON texts in canonical form would
// carry differently from one library to the next.
func printable(s string) string {
	s = trim(s)
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}

// state says what the self-test found.
func (p *profile) state(st statement) {
	st["distrust"] = p.distrust()
	st.addTrials("self_test", p.trials)
}

func (st statement) addTrials(test string, trials []trial) {
	for i, t := range trials {
		prefix := fmt.Sprintf("%s_%02d_", test, i+1)
		st[prefix+"attempt"], st[prefix+"outcome"], st[prefix+"escaped"] = t.name, t.outcome, t.escaped
	}
}

// attestor returns the attestation key of the token, which it makes at first need.
func (b *Backend) attestor(ctx context.Context) (*residentKey, error) {
	b.attestMu.Lock()
	defer b.attestMu.Unlock()
	if b.attests != nil {
		return b.attests, nil
	}
	spec := holdfast.KeySpec{Label: attestorLabel, Algorithm: holdfast.ES256, Residence: holdfast.Resident}
	found, err := ask(ctx, b, b.findAttestor)
	if err != nil || found != nil {
		b.attests = found
		return found, err
	}
	if !b.Capabilities().Supports(spec.Algorithm, spec.Residence) {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "this token makes no P-256 keys to sign evidence with")
	}
	k, err := b.generateResident(ctx, spec)
	if err != nil {
		return nil, err
	}
	b.keys.Delete(k.ref) // it is nobody's key
	b.attests = k
	return k, nil
}

// findAttestor returns the attestation key on the token, nil when there is none. Of several, made by daemons that
// started at once, any will do. One that was not made on the token is not used.
func (b *Backend) findAttestor(s *session) (*residentKey, error) {
	label := attestorLabel
	objects, err := s.known()
	if err != nil {
		return nil, err
	}
	for _, o := range filter(objects, selector{label: &label}) {
		if o.class != pkcs11.CKO_PRIVATE_KEY || len(o.id) != idSize {
			continue
		}
		if err := s.checkProtected(o.handle, want{}); holdfast.CodeOf(err) == holdfast.ErrUnsupported {
			continue
		} else if err != nil {
			return nil, err
		}
		f, err := s.describe(o, objects)
		if err != nil || f.algorithm != holdfast.ES256 {
			continue
		}
		u := b.refFor(o.id, "")
		return b.newResident(u.ref(), selectorOf(u), f), nil
	}
	return nil, nil
}
