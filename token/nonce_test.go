//go:build cgo && !nopiv

package token

import (
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"holdfast"
)

// TestRepeatedNonce checks that a card which uses a nonce twice is noticed: r is the same in both signatures.
func TestRepeatedNonce(t *testing.T) {
	b := &Backend{nonces: map[holdfast.Ref]signature{}}
	k := &key{b: b, ref: "piv:x", public: &ecdsa.PublicKey{}}
	der := func(r, s int64) []byte {
		out, err := asn1.Marshal(struct{ R, S *big.Int }{big.NewInt(r), big.NewInt(s)})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, step := range []struct {
		digest string
		r, s   int64
		bad    bool
	}{
		{"a", 1, 2, false},
		{"a", 1, 2, false}, // a deterministic card signs the same twice
		{"b", 3, 4, false},
		{"c", 3, 5, true},
		{"d", 6, 7, false},
	} {
		err := b.checkNonce(k, []byte(step.digest), der(step.r, step.s))
		if step.bad != errors.Is(err, holdfast.ErrIntegrity) || !step.bad && err != nil {
			t.Errorf("%+v: %v", step, err)
		}
	}
	if err := b.checkNonce(k, nil, []byte{1}); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("no signature at all: %v", err)
	}
}
