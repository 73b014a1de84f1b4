package vpiv

import (
	"bytes"
	"crypto/rand"
	"testing"
)

func TestMutualAuthentication(t *testing.T) {
	tests := []struct {
		name      string
		algorithm byte
		size      int
	}{
		{"Triple-DES", AlgorithmTripleDES, 24},
		{"AES-128", AlgorithmAES128, 16},
		{"AES-192", AlgorithmAES192, 24},
		{"AES-256", AlgorithmAES256, 32},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key := make([]byte, test.size)
			rand.Read(key)
			h := newHost(t, Config{ManagementKey: key, ManagementAlgorithm: test.algorithm})
			if sw := h.authenticate(test.algorithm, key); sw != swOK || !h.card.session.managed {
				t.Fatalf("right key: %v", sw)
			}
			wrong := bytes.Clone(key)
			wrong[0] ^= 0x10 // not a parity bit
			if sw := h.authenticate(test.algorithm, wrong); sw != swSecurity {
				t.Errorf("wrong key: %v", sw)
			}
			if h.card.session.managed {
				t.Error("still authenticated after a wrong answer")
			}
		})
	}
}

func TestWitnessServesOnce(t *testing.T) {
	h := newHost(t, Config{ManagementAlgorithm: AlgorithmAES192})
	block := hostCipher(t, AlgorithmAES192, defaultManagementKey)
	sealed := h.object(tagWitness, h.do(insAuthenticate, AlgorithmAES192, refManagement, unhex(t, "7C 02 80 00")))
	witness := make([]byte, 16)
	block.Decrypt(witness, sealed)
	answer := encodeTLV(tagDynamic, appendTLV(encodeTLV(tagWitness, witness), tagChallenge, make([]byte, 16)))
	h.do(insAuthenticate, AlgorithmAES192, refManagement, answer)
	if _, sw := h.send(insAuthenticate, AlgorithmAES192, refManagement, answer); sw != swConditions {
		t.Errorf("replayed answer: %v", sw)
	}
	// Without a witness, nothing and the empty string must not pass for one.
	empty := encodeTLV(tagDynamic, appendTLV(encodeTLV(tagResponse, nil), tagChallenge, make([]byte, 16)))
	if _, sw := h.send(insAuthenticate, AlgorithmAES192, refManagement, empty); sw != swWrongData {
		t.Errorf("internal authentication, which would encrypt for anybody: %v", sw)
	}
}

// TestExternalAuthentication is the exchange in which only the host proves itself: SP 800-73-4 part 2, appendix A.2.
func TestExternalAuthentication(t *testing.T) {
	h := newHost(t, Config{Version: [3]byte{5, 2, 4}})
	block := hostCipher(t, AlgorithmTripleDES, defaultManagementKey)
	ask := func() []byte { return h.object(tagChallenge, h.ok("00 87 03 9B 04 7C 02 81 00")) }
	answer := func(response []byte) status {
		_, sw := h.send(insAuthenticate, AlgorithmTripleDES, refManagement, dynamic(tagResponse, response))
		return sw
	}
	if sw := answer(make([]byte, 8)); sw != swConditions {
		t.Errorf("answer without challenge: %v", sw)
	}
	ask()
	if sw := answer(make([]byte, 8)); sw != swSecurity {
		t.Errorf("wrong answer: %v", sw)
	}
	if sw := answer(encrypt(block, ask())); sw != swOK {
		t.Errorf("right answer: %v", sw)
	}
	h.generate(slotAuthentication, algP256)
}

func TestAuthenticateMalformed(t *testing.T) {
	h := newHost(t, Config{})
	h.want(swWrongData, "00 87 0A 9B 00")
	h.want(swWrongData, "00 87 0A 9B 04 7C 03 80 00")
	h.want(swWrongData, "00 87 0A 9B 02 7C 00")
	h.want(swWrongData, "00 87 0A 9B 05 7C 02 80 00 00")
	h.want(swWrongP1P2, "00 87 03 9B 04 7C 02 80 00") // the key is AES-192
	h.ok("00 87 0A 9B 04 7C 02 80 00")
	h.want(swWrongData, "00 87 0A 9B 08 7C 06 80 02 AA BB 81 00") // challenge of no block
	h.want(swWrongP1P2, "00 87 11 9F 04 7C 02 82 00")
	h.want(swNoReference, "00 87 11 9A 04 7C 02 82 00")
}

func TestSetManagementKey(t *testing.T) {
	h := newHost(t, Config{})
	set := func(p2 byte, data []byte) status {
		_, sw := h.send(insSetManagement, 0xFF, p2, data)
		return sw
	}
	key := bytes.Repeat([]byte{0xA5}, 32)
	data := append([]byte{AlgorithmAES256, refManagement, 32}, key...)
	if sw := set(0xFF, data); sw != swSecurity {
		t.Errorf("unauthenticated: %v", sw)
	}
	h.manage()
	for name, bad := range map[string][]byte{
		"nothing":         nil,
		"other reference": append([]byte{AlgorithmAES256, 0x9A, 32}, key...),
		"wrong length":    append([]byte{AlgorithmAES256, refManagement, 31}, key...),
		"wrong size":      append([]byte{AlgorithmAES128, refManagement, 32}, key...),
		"no cipher":       append([]byte{0x07, refManagement, 32}, key...),
	} {
		if sw := set(0xFF, bad); sw != swWrongData {
			t.Errorf("%s: %v", name, sw)
		}
	}
	if sw := set(0x00, data); sw != swWrongP1P2 {
		t.Errorf("P2: %v", sw)
	}
	if sw := set(managementTouch, data); sw != swOK {
		t.Fatal(sw)
	}
	if got := h.ok("00 F7 00 9B"); !bytes.Equal(got, unhex(t, "01 01 0C 02 02 00 02 03 01 01 05 01 00")) {
		t.Errorf("metadata: % X", got)
	}
	h.card.SetTouch(false)
	if sw := h.authenticate(AlgorithmAES256, key); sw != swSecurity {
		t.Errorf("without touch: %v", sw)
	}
	h.card.SetTouch(true)
	if sw := h.authenticate(AlgorithmAES256, key); sw != swOK {
		t.Errorf("with touch: %v", sw)
	}
}

func TestOldManagementKeys(t *testing.T) {
	h := newHost(t, Config{Version: [3]byte{5, 3, 0}})
	if sw := h.authenticate(AlgorithmTripleDES, defaultManagementKey); sw != swOK {
		t.Fatal(sw)
	}
	data := append([]byte{AlgorithmAES192, refManagement, 24}, make([]byte, 24)...)
	if _, sw := h.send(insSetManagement, 0xFF, 0xFF, data); sw != swWrongData {
		t.Errorf("AES on 5.3: %v", sw)
	}
}
