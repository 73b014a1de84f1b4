package vpiv

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
)

// privateKey is a key in a slot with what GENERAL AUTHENTICATE may ask of it.
type privateKey interface {
	// publicTLVs returns the public key as it stands in a response to GENERATE and in metadata: SP 800-73-4 part 2,
	// table 11.
	publicTLVs() []byte
	// public returns the public key for a certificate.
	public() crypto.PublicKey
	// sign answers a challenge (tag 81): a signature, or for RSA the private operation on a whole block.
	sign(challenge []byte) ([]byte, status)
	// agree answers an exponentiation (tag 85): the shared secret with a peer's public key.
	agree(peer []byte) ([]byte, status)
	// stored returns what x509.MarshalPKCS8PrivateKey takes.
	stored() any
}

// The objects of a public key.
const (
	tagModulus  = 0x81
	tagExponent = 0x82
	tagPoint    = 0x86
)

// generateKey makes a key. It fails only where crypto/rsa does.
func generateKey(algorithm byte) (privateKey, error) {
	switch algorithm {
	case algP256:
		return newECKey(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case algP384:
		return newECKey(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case algEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return edKey{key}, err
	case algX25519:
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		return xKey{key}, err
	}
	bits, ok := rsaBits(algorithm)
	if !ok {
		return nil, errors.New("no such algorithm")
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	return rsaKey{key}, nil
}

func rsaBits(algorithm byte) (bits int, ok bool) {
	switch algorithm {
	case algRSA1024:
		return 1024, true
	case algRSA2048:
		return 2048, true
	case algRSA3072:
		return 3072, true
	case algRSA4096:
		return 4096, true
	}
	return 0, false
}

// restoreKey is the inverse of stored.
func restoreKey(key any) (privateKey, error) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return newECKey(key, nil)
	case ed25519.PrivateKey:
		return edKey{key}, nil
	case *ecdh.PrivateKey:
		return xKey{key}, nil
	case *rsa.PrivateKey:
		return rsaKey{key}, nil
	}
	return nil, errors.New("no key for a slot")
}

// The objects of IMPORT, by kind of key.
const (
	importPrimeP   = 0x01
	importPrimeQ   = 0x02
	importExpP     = 0x03
	importExpQ     = 0x04
	importInverse  = 0x05
	importECScalar = 0x06
	importEdSeed   = 0x07
	importXScalar  = 0x08
)

// parsePrivateKey makes a key of the objects of IMPORT; ok is false when they are not one.
func parsePrivateKey(algorithm byte, objects []tlv) (key privateKey, ok bool) {
	var err error
	switch algorithm {
	case algP256, algP384:
		curve := elliptic.P256()
		if algorithm == algP384 {
			curve = elliptic.P384()
		}
		scalar, _ := findTLV(objects, importECScalar)
		key, err = newECKey(ecdsa.ParseRawPrivateKey(curve, scalar))
	case algEd25519:
		seed, _ := findTLV(objects, importEdSeed)
		if len(seed) != ed25519.SeedSize {
			return nil, false
		}
		key = edKey{ed25519.NewKeyFromSeed(seed)}
	case algX25519:
		scalar, _ := findTLV(objects, importXScalar)
		var x *ecdh.PrivateKey
		x, err = ecdh.X25519().NewPrivateKey(scalar)
		key = xKey{x}
	default:
		key, err = parseRSAKey(algorithm, objects)
	}
	return key, err == nil
}

// rsaExponent is the only public exponent of PIV: SP 800-78-4, table 3-1.
const rsaExponent = 65537

// parseRSAKey makes an RSA key of its primes, and checks the other numbers against them.
func parseRSAKey(algorithm byte, objects []tlv) (privateKey, error) {
	bits, ok := rsaBits(algorithm)
	if !ok {
		return nil, errors.New("no such algorithm")
	}
	var numbers [importInverse + 1]*big.Int
	for tag := importPrimeP; tag <= importInverse; tag++ {
		value, _ := findTLV(objects, uint32(tag))
		if len(value) != bits/16 {
			return nil, errors.New("a number of the wrong size")
		}
		numbers[tag] = new(big.Int).SetBytes(value)
	}
	p, q := numbers[importPrimeP], numbers[importPrimeQ]
	key, err := rsaFromPrimes(p, q)
	if err != nil {
		return nil, err
	}
	pre := key.Precomputed
	if key.N.BitLen() != bits || !equal(pre.Dp, numbers[importExpP]) || !equal(pre.Dq, numbers[importExpQ]) ||
		!equal(pre.Qinv, numbers[importInverse]) {
		return nil, errors.New("numbers that do not belong together")
	}
	return rsaKey{key}, nil
}

// equal compares a precomputed number, which is missing for primes that are not two different ones.
func equal(have, want *big.Int) bool { return have != nil && have.Cmp(want) == 0 }

func rsaFromPrimes(p, q *big.Int) (*rsa.PrivateKey, error) {
	one := big.NewInt(1)
	if p.Cmp(one) <= 0 || q.Cmp(one) <= 0 {
		return nil, errors.New("no prime")
	}
	totient := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(rsaExponent), totient)
	if d == nil {
		return nil, errors.New("exponent without inverse")
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: rsaExponent},
		D:         d,
		Primes:    []*big.Int{p, q},
	}
	if err := key.Validate(); err != nil {
		return nil, err
	}
	key.Precompute()
	return key, nil
}

// ecKey is a key on P-256 or P-384: it signs and agrees.
type ecKey struct {
	key *ecdsa.PrivateKey
	dh  *ecdh.PrivateKey
}

func newECKey(key *ecdsa.PrivateKey, err error) (privateKey, error) {
	if err != nil {
		return nil, err
	}
	dh, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	return ecKey{key, dh}, nil
}

func (k ecKey) publicTLVs() []byte       { return encodeTLV(tagPoint, k.dh.PublicKey().Bytes()) }
func (k ecKey) public() crypto.PublicKey { return k.key.Public() }
func (k ecKey) stored() any              { return k.key }

// sign signs a digest no longer than the curve's order; the card neither hashes nor pads (SP 800-73-4 part 2, appendix
// A.4.2).
func (k ecKey) sign(digest []byte) ([]byte, status) {
	if len(digest) == 0 || len(digest) > (k.key.Curve.Params().BitSize+7)/8 {
		return nil, swWrongData
	}
	signature, err := ecdsa.SignASN1(rand.Reader, k.key, digest)
	if err != nil {
		return nil, swConditions
	}
	return signature, swOK
}

func (k ecKey) agree(peer []byte) ([]byte, status) { return agree(k.dh, peer) }

// agree is ECDH: SP 800-73-4 part 2, appendix A.5. A peer that is not a point of the curve is malformed data.
func agree(key *ecdh.PrivateKey, peer []byte) ([]byte, status) {
	public, err := key.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, swWrongData
	}
	secret, err := key.ECDH(public)
	if err != nil {
		return nil, swWrongData
	}
	return secret, swOK
}

// edKey is an Ed25519 key: it signs whole messages.
type edKey struct{ key ed25519.PrivateKey }

func (k edKey) publicTLVs() []byte                      { return encodeTLV(tagPoint, k.key.Public().(ed25519.PublicKey)) }
func (k edKey) public() crypto.PublicKey                { return k.key.Public() }
func (k edKey) stored() any                             { return k.key }
func (k edKey) sign(message []byte) ([]byte, status)    { return ed25519.Sign(k.key, message), swOK }
func (k edKey) agree([]byte) (secret []byte, sw status) { return nil, swWrongData }

// xKey is an X25519 key: it agrees.
type xKey struct{ key *ecdh.PrivateKey }

func (k xKey) publicTLVs() []byte                        { return encodeTLV(tagPoint, k.key.PublicKey().Bytes()) }
func (k xKey) public() crypto.PublicKey                  { return k.key.PublicKey() }
func (k xKey) stored() any                               { return k.key }
func (k xKey) sign([]byte) (signature []byte, sw status) { return nil, swWrongData }
func (k xKey) agree(peer []byte) ([]byte, status)        { return agree(k.key, peer) }

// rsaKey is an RSA key: it does the private operation on a block that the host padded.
type rsaKey struct{ key *rsa.PrivateKey }

func (k rsaKey) publicTLVs() []byte {
	out := appendTLV(nil, tagModulus, k.key.N.Bytes())
	return appendTLV(out, tagExponent, big.NewInt(int64(k.key.E)).Bytes())
}

func (k rsaKey) public() crypto.PublicKey               { return k.key.Public() }
func (k rsaKey) stored() any                            { return k.key }
func (k rsaKey) agree([]byte) (secret []byte, s status) { return nil, swWrongData }

// sign is the RSA private operation by the Chinese remainder theorem (RFC 8017, section 5.1.2). It takes a time that
// depends on the key, which is all right for a simulator only.
func (k rsaKey) sign(block []byte) ([]byte, status) {
	m := new(big.Int).SetBytes(block)
	if len(block) != k.key.Size() || m.Cmp(k.key.N) >= 0 {
		return nil, swWrongData
	}
	p, q, pre := k.key.Primes[0], k.key.Primes[1], k.key.Precomputed
	m1 := new(big.Int).Exp(m, pre.Dp, p)
	m2 := new(big.Int).Exp(m, pre.Dq, q)
	h := m1.Sub(m1, m2)
	h.Mul(h, pre.Qinv).Mod(h, p)
	s := h.Mul(h, q).Add(h, m2)
	return s.FillBytes(make([]byte, k.key.Size())), swOK
}
