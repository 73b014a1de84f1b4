package vpiv

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"testing"
)

// need returns an object that has to be there.
func need(t *testing.T, objects []tlv, tag uint32) []byte {
	t.Helper()
	value, ok := findTLV(objects, tag)
	if !ok {
		t.Fatalf("no object %02X", tag)
	}
	return value
}

func TestGenerateECDSA(t *testing.T) {
	for _, test := range []struct {
		algorithm byte
		curve     elliptic.Curve
		dh        ecdh.Curve
	}{{algP256, elliptic.P256(), ecdh.P256()}, {algP384, elliptic.P384(), ecdh.P384()}} {
		t.Run(test.curve.Params().Name, func(t *testing.T) {
			h := newHost(t, Config{})
			h.manage()
			point := need(t, h.generate(slotAuthentication, test.algorithm, pinNever, touchNever), tagPoint)
			public, err := ecdsa.ParseUncompressedPublicKey(test.curve, point)
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256([]byte("message"))
			for _, d := range [][]byte{digest[:], digest[:20]} { // the card neither pads nor cuts
				signature, sw := h.use(slotAuthentication, test.algorithm, tagChallenge, d)
				if sw != swOK || !ecdsa.VerifyASN1(public, d, signature) {
					t.Errorf("digest of %d bytes: %v", len(d), sw)
				}
			}
			for _, n := range []int{0, (test.curve.Params().BitSize+7)/8 + 1} {
				if _, sw := h.use(slotAuthentication, test.algorithm, tagChallenge, make([]byte, n)); sw != swWrongData {
					t.Errorf("digest of %d bytes: %v", n, sw)
				}
			}
			peer, err := test.dh.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			checkAgreement(t, h, test.algorithm, point, peer)
		})
	}
}

// checkAgreement agrees with the key in 9A from both sides.
func checkAgreement(t *testing.T, h *host, algorithm byte, point []byte, peer *ecdh.PrivateKey) {
	t.Helper()
	public, err := peer.Curve().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	got, sw := h.use(slotAuthentication, algorithm, tagExponentiation, peer.PublicKey().Bytes())
	if sw != swOK || !bytes.Equal(got, want) {
		t.Errorf("shared secrets differ: %v", sw)
	}
	bad := bytes.Clone(peer.PublicKey().Bytes())
	if _, sw := h.use(slotAuthentication, algorithm, tagExponentiation, bad[1:]); sw != swWrongData {
		t.Errorf("short point: %v", sw)
	}
	if _, sw := h.use(slotAuthentication, algorithm, tagExponentiation, make([]byte, len(bad))); sw != swWrongData {
		t.Errorf("point of zeros: %v", sw)
	}
}

func TestGenerateEdwards(t *testing.T) {
	h := newHost(t, Config{})
	h.manage()
	public := need(t, h.generate(slotAuthentication, algEd25519, pinNever, touchNever), tagPoint)
	for _, n := range []int{0, 1, 300, 3000} {
		message := bytes.Repeat([]byte{'m'}, n)
		signature, sw := h.use(slotAuthentication, algEd25519, tagChallenge, message)
		if sw != swOK || !ed25519.Verify(public, message, signature) {
			t.Errorf("message of %d bytes: %v", n, sw)
		}
	}
	if _, sw := h.use(slotAuthentication, algEd25519, tagExponentiation, public); sw != swWrongData {
		t.Errorf("agreement with a signing key: %v", sw)
	}
	point := need(t, h.generate(slotAuthentication, algX25519, pinNever, touchNever), tagPoint)
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	checkAgreement(t, h, algX25519, point, peer)
	if _, sw := h.use(slotAuthentication, algX25519, tagChallenge, []byte("m")); sw != swWrongData {
		t.Errorf("signature with an agreement key: %v", sw)
	}
}

func TestGenerateRSA(t *testing.T) {
	for _, algorithm := range []byte{algRSA1024, algRSA2048} { // the larger ones take seconds and the same code
		bits, _ := rsaBits(algorithm)
		h := newHost(t, Config{})
		h.manage()
		objects := h.generate(slotKeyManagement, algorithm, pinNever, touchNever)
		public := &rsa.PublicKey{
			N: new(big.Int).SetBytes(need(t, objects, tagModulus)),
			E: int(new(big.Int).SetBytes(need(t, objects, tagExponent)).Int64()),
		}
		if public.N.BitLen() != bits || public.E != 65537 {
			t.Fatalf("modulus of %d bits, exponent %d", public.N.BitLen(), public.E)
		}
		secret := append([]byte{0, 2}, bytes.Repeat([]byte{0xAA}, bits/8-2)...)
		sealed := new(big.Int).Exp(new(big.Int).SetBytes(secret), big.NewInt(int64(public.E)), public.N)
		block, sw := h.use(slotKeyManagement, algorithm, tagChallenge, sealed.FillBytes(make([]byte, bits/8)))
		if sw != swOK || !bytes.Equal(block, secret) {
			t.Errorf("%d bits: %v, % X", bits, sw, block)
		}
		for _, n := range []int{0, bits/8 - 1, bits/8 + 1} {
			if _, sw := h.use(slotKeyManagement, algorithm, tagChallenge, make([]byte, n)); sw != swWrongData {
				t.Errorf("block of %d bytes: %v", n, sw)
			}
		}
		if _, sw := h.use(slotKeyManagement, algorithm, tagChallenge, public.N.Bytes()); sw != swWrongData {
			t.Errorf("block as large as the modulus: %v", sw)
		}
	}
}

func TestGenerateRefused(t *testing.T) {
	h := newHost(t, Config{})
	h.want(swSecurity, "00 47 00 9A 05 AC 03 80 01 11")
	h.manage()
	for _, test := range []struct {
		name, apdu string
		sw         status
	}{
		{"not a slot", "00 47 00 96 05 AC 03 80 01 11", swWrongP1P2},
		{"P1", "00 47 01 9A 05 AC 03 80 01 11", swWrongP1P2},
		{"no template", "00 47 00 9A 03 80 01 11", swWrongData},
		{"no algorithm", "00 47 00 9A 02 AC 00", swWrongData},
		{"unknown algorithm", "00 47 00 9A 05 AC 03 80 01 22", swWrongData},
		{"symmetric algorithm", "00 47 00 9A 05 AC 03 80 01 0A", swWrongData},
		{"cut", "00 47 00 9A 05 AC 04 80 01 11", swWrongData},
		{"biometric policy", "00 47 00 9A 08 AC 06 80 01 11 AA 01 04", swWrongData},
		{"touch policy", "00 47 00 9A 08 AC 06 80 01 11 AB 01 04", swWrongData},
		{"long policy", "00 47 00 9A 09 AC 07 80 01 11 AA 02 01 01", swWrongData},
		{"nothing", "00 47 00 9A", swWrongData},
	} {
		t.Run(test.name, func(t *testing.T) { (&host{t, h.card}).want(test.sw, test.apdu) })
	}
	if h.card.state.keys[slotAuthentication] != nil {
		t.Error("a refused command made a key")
	}
}

func TestPINPolicies(t *testing.T) {
	h := newHost(t, Config{})
	h.manage()
	digest := make([]byte, 32)
	digest[0] = 1
	sign := func(slot byte) status {
		_, sw := h.use(slot, algP256, tagChallenge, digest)
		return sw
	}
	expect := func(what string, have, want status) {
		t.Helper()
		if have != want {
			t.Errorf("%s: %v, want %v", what, have, want)
		}
	}
	h.generate(slotAuthentication, algP256)       // once
	h.generate(slotSignature, algP256)            // always
	h.generate(slotCardAuth, algP256)             // never
	h.generate(slotRetiredFirst, algP256, 0, 0)   // the slot's: once
	h.generate(slotRetiredFirst+1, algP256, 1, 1) // never

	expect("never, logged out", sign(slotCardAuth), swOK)
	expect("never by policy, logged out", sign(slotRetiredFirst+1), swOK)
	expect("once, logged out", sign(slotAuthentication), swSecurity)
	expect("once by default, logged out", sign(slotRetiredFirst), swSecurity)
	expect("always, logged out", sign(slotSignature), swSecurity)
	h.verify(DefaultPIN)
	expect("once", sign(slotAuthentication), swOK)
	expect("once, again", sign(slotAuthentication), swOK)
	expect("always, not right after the PIN", sign(slotSignature), swSecurity)
	h.verify(DefaultPIN)
	expect("always", sign(slotSignature), swOK)
	expect("always, a second time", sign(slotSignature), swSecurity)
	h.verify(DefaultPIN)
	h.ok("00 FD 00 00 00")
	expect("always, another command between", sign(slotSignature), swSecurity)
	h.verify(DefaultPIN)
	h.verify("000000")
	expect("always, after a wrong PIN", sign(slotSignature), swSecurity)
}

func TestTouchPolicy(t *testing.T) {
	h := newHost(t, Config{TouchRefused: true})
	h.manage()
	for _, policy := range []byte{touchAlways, touchCached} {
		h.generate(slotAuthentication, algP256, pinNever, policy)
		if _, sw := h.use(slotAuthentication, algP256, tagChallenge, make([]byte, 32)); sw != swSecurity {
			t.Errorf("policy %d, not touched: %v", policy, sw)
		}
		h.card.SetTouch(true)
		if _, sw := h.use(slotAuthentication, algP256, tagChallenge, make([]byte, 32)); sw != swOK {
			t.Errorf("policy %d, touched: %v", policy, sw)
		}
		h.card.SetTouch(false)
	}
}

func TestUseRefused(t *testing.T) {
	h := newHost(t, Config{})
	h.manage()
	h.generate(slotAuthentication, algP256, pinNever, touchNever)
	h.want(swWrongP1P2, "00 87 14 9A 07 7C 05 82 00 81 01 AA") // key of another algorithm
	h.want(swWrongP1P2, "00 87 11 F9 07 7C 05 82 00 81 01 AA") // the attestation key signs nothing else
	h.want(swWrongData, "00 87 11 9A 05 7C 03 81 01 AA")       // no answer asked for
	h.want(swWrongData, "00 87 11 9A 04 7C 02 82 00")          // nothing to answer
	h.want(swWrongData, "00 87 11 9A 08 7C 06 82 01 00 81 01 AA")
	h.want(swWrongData, "00 87 11 9A 06 7C 05 82 00 81 01")
}

func TestImport(t *testing.T) {
	h := newHost(t, Config{})
	rsaPrivate, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	numbers := func(k *rsa.PrivateKey) []byte {
		var out []byte
		for i, n := range []*big.Int{k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv} {
			out = appendTLV(out, uint32(importPrimeP+i), n.FillBytes(make([]byte, 128)))
		}
		return out
	}
	scalar := bytes.Repeat([]byte{0x11}, 32)
	policies := unhex(t, "AA 01 01 AB 01 01")
	put := func(algorithm byte, data []byte) status {
		_, sw := h.send(insImport, algorithm, slotAuthentication, append(data, policies...))
		return sw
	}
	if sw := put(algP256, encodeTLV(importECScalar, scalar)); sw != swSecurity {
		t.Errorf("unauthenticated: %v", sw)
	}
	h.manage()
	for name, key := range map[string]struct {
		algorithm byte
		data      []byte
	}{
		"P-256": {algP256, encodeTLV(importECScalar, scalar)}, "P-384": {algP384, encodeTLV(importECScalar, append(scalar, scalar[:16]...))},
		"Ed25519": {algEd25519, encodeTLV(importEdSeed, scalar)}, "X25519": {algX25519, encodeTLV(importXScalar, scalar)},
		"RSA": {algRSA2048, numbers(rsaPrivate)},
	} {
		if sw := put(key.algorithm, key.data); sw != swOK {
			t.Errorf("%s: %v", name, sw)
		}
		if got := h.card.state.keys[slotAuthentication]; got == nil || got.algorithm != key.algorithm || got.origin != originImported {
			t.Errorf("%s: not there", name)
		}
		if _, sw := h.send(insAttest, slotAuthentication, 0, nil); sw != swWrongData {
			t.Errorf("%s: attested though imported: %v", name, sw)
		}
	}
	edited := numbers(rsaPrivate)
	edited[len(edited)-1] ^= 1
	same := &rsa.PrivateKey{Primes: []*big.Int{rsaPrivate.Primes[0], rsaPrivate.Primes[0]}, Precomputed: rsaPrivate.Precomputed}
	for name, key := range map[string]struct {
		algorithm byte
		data      []byte
	}{
		"no numbers": {algRSA2048, nil}, "edited numbers": {algRSA2048, edited}, "one prime twice": {algRSA2048, numbers(same)},
		"zeros":      {algRSA1024, append(bytes.Repeat(encodeTLV(importPrimeP, make([]byte, 64)), 1), encodeTLV(importPrimeQ, make([]byte, 64))...)},
		"other size": {algRSA3072, numbers(rsaPrivate)}, "short scalar": {algP256, encodeTLV(importECScalar, scalar[:31])},
		"zero scalar": {algP256, encodeTLV(importECScalar, make([]byte, 32))}, "short seed": {algEd25519, encodeTLV(importEdSeed, scalar[:31])},
		"wrong object": {algX25519, encodeTLV(importEdSeed, scalar)}, "malformed": {algP256, []byte{6, 0x80}},
	} {
		if sw := put(key.algorithm, key.data); sw != swWrongData {
			t.Errorf("%s: %v", name, sw)
		}
	}
	h.want(swWrongP1P2, "00 FE 22 9A 00")
	h.want(swWrongP1P2, "00 FE 11 9F 00")
}

func TestImportedRSASigns(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	restored, err := rsaFromPrimes(key.Primes[0], key.Primes[1])
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	want, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	block := new(big.Int).Exp(new(big.Int).SetBytes(want), big.NewInt(rsaExponent), key.N)
	got, sw := rsaKey{restored}.sign(block.FillBytes(make([]byte, 128)))
	if sw != swOK || !bytes.Equal(got, want) {
		t.Errorf("signatures differ: %v", sw)
	}
}

func TestMoveKey(t *testing.T) {
	h := newHost(t, Config{})
	h.want(swSecurity, "00 F6 82 9A")
	h.manage()
	h.generate(slotAuthentication, algP256)
	h.generate(slotSignature, algP256)
	before := h.ok("00 F7 00 9A")
	h.want(swNoReference, "00 F6 82 9D") // empty
	h.want(swConditions, "00 F6 9C 9A")  // occupied
	h.want(swWrongP1P2, "00 F6 F9 9A")
	h.want(swWrongP1P2, "00 F6 9A F9")
	h.want(swWrongP1P2, "00 F6 96 9A")
	h.ok("00 F6 82 9A")
	h.want(swNoReference, "00 F7 00 9A")
	if after := h.ok("00 F7 00 82"); !bytes.Equal(before, after) {
		t.Errorf("moved key: % X, was % X", after, before)
	}
	h.ok("00 F6 FF 82")
	h.want(swNoReference, "00 F7 00 82")
}

func TestMetadata(t *testing.T) {
	h := newHost(t, Config{PUK: "87654321"})
	for apdu, want := range map[string]string{
		"00 F7 00 80": "01 01 FF 05 01 01 06 02 03 03",
		"00 F7 00 81": "01 01 FF 05 01 00 06 02 03 03",
		"00 F7 00 9B": "01 01 0A 02 02 00 01 03 01 01 05 01 01",
	} {
		if got := h.ok(apdu); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s: % X", apdu, got)
		}
	}
	h.verify("000000")
	if got := h.ok("00 F7 00 80"); got[len(got)-1] != 2 {
		t.Errorf("tries left: % X", got)
	}
	h.manage()
	point := need(t, h.generate(slotSignature, algP256, pinAlways, touchCached), tagPoint)
	want := append(unhex(t, "01 01 11 02 02 03 03 03 01 01 04 43"), encodeTLV(tagPoint, point)...)
	if got := h.ok("00 F7 00 9C"); !bytes.Equal(got, want) {
		t.Errorf("key: % X", got)
	}
	h.want(swNoReference, "00 F7 00 9A")
	h.want(swWrongP1P2, "00 F7 01 9C")
}

// TestVersions checks that a card knows what its version does and nothing more.
func TestVersions(t *testing.T) {
	tests := []struct {
		apdu       string
		since      [2]byte
		sw, absent status
	}{
		{"00 47 00 9A 05 AC 03 80 01 14", [2]byte{4, 0}, swOK, swWrongData},
		{"00 47 00 9A 08 AC 06 80 01 11 AA 01 01", [2]byte{4, 0}, swOK, swWrongData},
		{"00 F9 9E 00", [2]byte{4, 3}, swOK, swWrongINS},
		{"00 F8 00 00 00", [2]byte{5, 0}, swOK, swWrongINS},
		{"00 F7 00 80 00", [2]byte{5, 3}, swOK, swWrongINS},
		{"00 FF FF FF 13 08 9B 10 000102030405060708090A0B0C0D0E0F", [2]byte{5, 4}, swOK, swWrongData},
		{"00 47 00 9A 05 AC 03 80 01 E0", [2]byte{5, 7}, swOK, swWrongData},
		{"00 F6 82 9E", [2]byte{5, 7}, swOK, swWrongINS},
	}
	for _, version := range [][3]byte{{3, 5, 0}, {4, 2, 7}, {4, 3, 5}, {5, 0, 2}, {5, 2, 7}, {5, 3, 0}, {5, 4, 3}, {5, 7, 1}} {
		for _, test := range tests {
			h := newHost(t, Config{Version: version})
			h.manage()
			h.generate(slotCardAuth, algP256)
			want := test.absent
			if version[0] > test.since[0] || version[0] == test.since[0] && version[1] >= test.since[1] {
				want = test.sw
			}
			_, sw := h.raw(unhex(t, test.apdu))
			if sw&0xFF00 == swMoreData {
				sw = swOK
			}
			if sw != want {
				t.Errorf("version %v, %s: %v, want %v", version, test.apdu, sw, want)
			}
		}
	}
}
