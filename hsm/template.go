//go:build cgo && !nopkcs11

package hsm

import (
	"encoding/binary"
	"runtime"
	"slices"
	"unsafe"

	"github.com/miekg/pkcs11"

	"holdfast"
)

// What miekg/pkcs11, which has the constants of PKCS#11 2.40, does not name.
const (
	ckkECEdwards    = 0x40 // CKK_EC_EDWARDS, PKCS#11 3.0
	ckkECMontgomery = 0x41 // CKK_EC_MONTGOMERY

	ckmEdwardsKeyPairGen    = 0x1055 // CKM_EC_EDWARDS_KEY_PAIR_GEN
	ckmMontgomeryKeyPairGen = 0x1056 // CKM_EC_MONTGOMERY_KEY_PAIR_GEN
	ckmEdDSA                = 0x1057 // CKM_EDDSA
	ckmAESKeyWrapKWP        = 0x210B // CKM_AES_KEY_WRAP_KWP, RFC 5649
)

// want says what a key to be generated is like, besides its algorithm.
type want struct {
	token       bool   // an object on the token, else of the session
	extractable bool   // may be wrapped; never readable: SENSITIVE is always true
	trustedOnly bool   // CKA_WRAP_WITH_TRUSTED
	always      bool   // CKA_ALWAYS_AUTHENTICATE
	restrict    bool   // give CKA_ALLOWED_MECHANISMS
	label       string // CKA_LABEL
	id          []byte // CKA_ID
}

func attr(t uint, v any) *pkcs11.Attribute { return pkcs11.NewAttribute(t, v) }

// common returns the attributes that both halves have.
func (w want) common() []*pkcs11.Attribute {
	list := []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, w.token)}
	if w.label != "" {
		list = append(list, attr(pkcs11.CKA_LABEL, w.label))
	}
	if len(w.id) != 0 {
		list = append(list, attr(pkcs11.CKA_ID, w.id))
	}
	return list
}

// protected returns the attributes that keep a private or secret key in. All are given: what modules take where one is
// missing differs (SoftHSM2 makes it readable, others exportable).
func (w want) protected() []*pkcs11.Attribute {
	list := append(w.common(),
		attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, w.extractable))
	if w.trustedOnly {
		list = append(list, attr(pkcs11.CKA_WRAP_WITH_TRUSTED, true))
	}
	if w.always {
		list = append(list, attr(pkcs11.CKA_ALWAYS_AUTHENTICATE, true))
	}
	return list
}

// privateUses returns the usage attributes of a private key of algorithm a: the one it is for, and no other.
func privateUses(a holdfast.Algorithm) []*pkcs11.Attribute {
	use := a.Use()
	list := []*pkcs11.Attribute{
		attr(pkcs11.CKA_SIGN, use == holdfast.UseSign), attr(pkcs11.CKA_DERIVE, use == holdfast.UseAgree),
		attr(pkcs11.CKA_DECRYPT, false), attr(pkcs11.CKA_UNWRAP, false),
	}
	if a.RSA() {
		list = append(list, attr(pkcs11.CKA_SIGN_RECOVER, false))
	}
	return list
}

// pairTemplates returns the templates and mechanism for C_GenerateKeyPair. params is CKA_EC_PARAMS, nil for RSA.
func pairTemplates(a holdfast.Algorithm, mech uint, params []byte, w want) (m []*pkcs11.Mechanism, pub, priv []*pkcs11.Attribute) {
	pub = append(w.common(), attr(pkcs11.CKA_PRIVATE, false), attr(pkcs11.CKA_VERIFY, a.Use() == holdfast.UseSign),
		attr(pkcs11.CKA_ENCRYPT, false), attr(pkcs11.CKA_WRAP, false))
	if a.RSA() {
		pub = append(pub, attr(pkcs11.CKA_MODULUS_BITS, a.Bits()), attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	} else {
		pub = append(pub, attr(pkcs11.CKA_EC_PARAMS, params))
	}
	priv = append(w.protected(), privateUses(a)...)
	if w.restrict {
		priv = append(priv, attr(pkcs11.CKA_ALLOWED_MECHANISMS, ulongs(useMechanism(a))))
	}
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}, pub, priv
}

// secretTemplate returns the template for an AES-256 key that encrypts.
func secretTemplate(w want) []*pkcs11.Attribute {
	list := append(w.protected(), attr(pkcs11.CKA_VALUE_LEN, 32),
		attr(pkcs11.CKA_ENCRYPT, true), attr(pkcs11.CKA_DECRYPT, true), attr(pkcs11.CKA_WRAP, false),
		attr(pkcs11.CKA_UNWRAP, false), attr(pkcs11.CKA_SIGN, false), attr(pkcs11.CKA_VERIFY, false))
	if w.restrict {
		list = append(list, attr(pkcs11.CKA_ALLOWED_MECHANISMS, ulongs(pkcs11.CKM_AES_GCM)))
	}
	return list
}

// keyType returns the CKK_ of an algorithm's keys as made by mechanism mech.
func keyType(a holdfast.Algorithm, mech uint) uint {
	switch {
	case a.RSA():
		return pkcs11.CKK_RSA
	case a.Use() == holdfast.UseEncrypt:
		return pkcs11.CKK_AES
	case mech == ckmEdwardsKeyPairGen:
		return ckkECEdwards
	case mech == ckmMontgomeryKeyPairGen:
		return ckkECMontgomery
	}
	return pkcs11.CKK_EC
}

// useMechanism returns the mechanism that keys of algorithm a are used with.
func useMechanism(a holdfast.Algorithm) uint {
	switch {
	case a == holdfast.EdDSA:
		return ckmEdDSA
	case a.JOSE() == "RS256":
		return pkcs11.CKM_RSA_PKCS
	case a.JOSE() == "PS256":
		return pkcs11.CKM_RSA_PKCS_PSS
	case a.Use() == holdfast.UseAgree:
		return pkcs11.CKM_ECDH1_DERIVE
	case a.Use() == holdfast.UseEncrypt:
		return pkcs11.CKM_AES_GCM
	}
	return pkcs11.CKM_ECDSA
}

// signMechanism returns the mechanism with its parameters for C_SignInit. It is not changed by use.
func signMechanism(a holdfast.Algorithm) []*pkcs11.Mechanism {
	var params any
	if a.JOSE() == "PS256" {
		params = pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, uint(a.Hash().Size()))
	}
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(useMechanism(a), params)}
}

// ulongSize is sizeof(CK_ULONG), which miekg/pkcs11 takes to be the size of uint.
const ulongSize = int(unsafe.Sizeof(uint(0)))

// ulongs encodes an array of CK_ULONG.
func ulongs(values ...uint) []byte {
	var out []byte
	for _, v := range values {
		if ulongSize == 8 {
			out = binary.NativeEndian.AppendUint64(out, uint64(v))
		} else {
			out = binary.NativeEndian.AppendUint32(out, uint32(v))
		}
	}
	return out
}

// parseULongs is the reverse of ulongs, nil for anything else.
func parseULongs(b []byte) []uint {
	if len(b)%ulongSize != 0 {
		return nil
	}
	var out []uint
	for part := range slices.Chunk(b, ulongSize) {
		if ulongSize == 8 {
			out = append(out, uint(binary.NativeEndian.Uint64(part)))
		} else {
			out = append(out, uint(binary.NativeEndian.Uint32(part)))
		}
	}
	return out
}

// parseULong returns the one CK_ULONG in b.
func parseULong(b []byte) (uint, bool) {
	if l := parseULongs(b); len(l) == 1 {
		return l[0], true
	}
	return 0, false
}

// arrayTemplate holds an attribute whose value is an array of CK_ATTRIBUTE, which points to more memory.
type arrayTemplate struct {
	attribute *pkcs11.Attribute
	pinner    runtime.Pinner
}

// ckAttribute is CK_ATTRIBUTE on platforms where structures are not packed, which is all but Windows.
type ckAttribute struct {
	kind   uint
	value  unsafe.Pointer
	length uint
}

// newArrayTemplate makes one of a template such as CKA_UNWRAP_TEMPLATE. release has to be called after use.
func newArrayTemplate(kind uint, list []*pkcs11.Attribute) *arrayTemplate {
	t := &arrayTemplate{}
	array := make([]ckAttribute, len(list))
	for i, a := range list {
		t.pinner.Pin(&a.Value[0])
		array[i] = ckAttribute{a.Type, unsafe.Pointer(&a.Value[0]), uint(len(a.Value))}
	}
	size := len(array) * int(unsafe.Sizeof(ckAttribute{}))
	// The bytes are copied to C memory, pointers and all; the values they point to are pinned until release.
	t.attribute = attr(kind, slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&array[0])), size)))
	return t
}

func (t *arrayTemplate) release() { t.pinner.Unpin() }

// lockDown is what CKA_UNWRAP_TEMPLATE of a key-wrapping key asks of what it unwraps.
func lockDown() *arrayTemplate {
	return newArrayTemplate(pkcs11.CKA_UNWRAP_TEMPLATE,
		[]*pkcs11.Attribute{attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false)})
}

// canLockDown is false where ckAttribute is not CK_ATTRIBUTE.
const canLockDown = runtime.GOOS != "windows"
