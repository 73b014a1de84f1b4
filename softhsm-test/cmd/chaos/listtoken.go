package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// The parts of a key on a token.
const (
	publicObject  = "public key"
	privateObject = "private key"
	secretObject  = "secret key"
)

var objectClasses = map[uint]string{
	pkcs11.CKO_PUBLIC_KEY: publicObject, pkcs11.CKO_PRIVATE_KEY: privateObject, pkcs11.CKO_SECRET_KEY: secretObject,
}

// tokenParts returns the objects that a key of algorithm a consists of.
func tokenParts(a holdfast.Algorithm) []string {
	if a.Use() == holdfast.UseEncrypt {
		return []string{secretObject}
	}
	return []string{privateObject, publicObject}
}

// listToken lists the objects of a token by CKA_ID and CKA_LABEL, those of the daemon's own (wrapping and attestation
// keys) included.
func listToken(t *softhsmtest.Token) (keys rawKeys, err error) {
	if err := os.Setenv("SOFTHSM2_CONF", t.Conf); err != nil {
		return nil, err
	}
	p11 := pkcs11.New(t.Module)
	if p11 == nil {
		return nil, fmt.Errorf("%s cannot be loaded", t.Module)
	}
	defer p11.Destroy()
	if err := p11.Initialize(); err != nil {
		return nil, fmt.Errorf("C_Initialize: %w", err)
	}
	defer func() { err = errors.Join(err, p11.Finalize()) }()
	s, err := openSession(p11, t)
	if err != nil {
		return nil, err
	}
	if err := p11.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}); err != nil {
		return nil, fmt.Errorf("C_FindObjectsInit: %w", err)
	}
	const most = 10_000 // more than there can be
	handles, _, err := p11.FindObjects(s, most)
	if err := errors.Join(err, p11.FindObjectsFinal(s)); err != nil {
		return nil, fmt.Errorf("C_FindObjects: %w", err)
	}
	keys = rawKeys{}
	for _, h := range handles {
		id, part, err := identify(p11, s, h)
		if err != nil {
			return nil, err
		}
		keys[id] = append(keys[id], part)
	}
	for _, parts := range keys {
		slices.Sort(parts)
	}
	return keys, nil
}

func openSession(p11 *pkcs11.Ctx, t *softhsmtest.Token) (pkcs11.SessionHandle, error) {
	slots, err := p11.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("C_GetSlotList: %w", err)
	}
	for _, slot := range slots {
		info, err := p11.GetTokenInfo(slot)
		if err != nil || info.SerialNumber != t.Serial {
			continue
		}
		s, err := p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return 0, fmt.Errorf("C_OpenSession: %w", err)
		}
		if err := p11.Login(s, pkcs11.CKU_USER, t.PIN); err != nil {
			return 0, fmt.Errorf("C_Login: %w", err)
		}
		return s, nil
	}
	return 0, fmt.Errorf("there is no token with the serial number %s", t.Serial)
}

// identify returns what a key on the token is known by, and which part of it an object is.
func identify(p11 *pkcs11.Ctx, s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (id, part string, err error) {
	values, err := p11.GetAttributeValue(s, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil), pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil),
	})
	if err != nil {
		return "", "", fmt.Errorf("C_GetAttributeValue: %w", err)
	}
	class := uint(values[0].Value[0]) // little-endian, and small for keys
	part = objectClasses[class]
	if part == "" {
		part = fmt.Sprintf("object of class %#x", class)
	}
	return tokenKeyID(string(values[1].Value), string(values[2].Value)), part, nil
}

func tokenKeyID(id, label string) string { return fmt.Sprintf("id %x label %q", id, label) }

// isOwn reports whether a key on the token is one that the daemon keeps for itself, which it makes when it first needs it:
// wrapping keys and their companions. Their labels say so.
func isOwn(id string) bool { return strings.Contains(id, ` label "holdfast `) }

var idInRef = regexp.MustCompile(`[:;]id=([^;]*)`)

// tokenIDOf returns what listToken calls the key with a ref and a name.
func tokenIDOf(ref, name string) (string, error) {
	m := idInRef.FindStringSubmatch(ref)
	if m == nil {
		return "", fmt.Errorf("the ref %s has no id", ref)
	}
	id, err := url.PathUnescape(m[1])
	return tokenKeyID(id, name), err
}

// emptyObjects counts the object files without content that SoftHSM2 leaves when its process dies between making a file
// and writing it. No token lists them.
func emptyObjects(t *softhsmtest.Token) (int, error) {
	files, err := filepath.Glob(filepath.Join(t.Tokens(), "*", "*.object"))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		if info.Size() == 0 {
			n++
		}
	}
	return n, nil
}
