package webvh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"holdfast/did"
	"holdfast/internal/pubkey"
	"holdfast/internal/vectors"
)

// seedKey returns the key of a seed in hexadecimal.
func seedKey(t testing.TB, seed string) Key {
	t.Helper()
	raw, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(raw)
	multikey, err := pubkey.MarshalMultikey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return Key{multikey, func(_ context.Context, message []byte) ([]byte, error) {
		return ed25519.Sign(private, message), nil
	}}
}

// TestReproduce makes the published logs again, from the seeds in script.yaml and the parameters and states in the logs:
// SCID, entry hashes and signatures come out the same, for Ed25519 is deterministic.
func TestReproduce(t *testing.T) {
	dir, ok := vectors.Dir(t)
	if !ok {
		return
	}
	logs, err := filepath.Glob(filepath.Join(dir, "did-webvh", "suite", "*", "*", "did.jsonl"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range logs {
		scenario := filepath.Base(filepath.Dir(filepath.Dir(path)))
		if strings.HasPrefix(scenario, "negative-") {
			continue
		}
		t.Run(scenario+"/"+filepath.Base(filepath.Dir(path)), func(t *testing.T) { reproduce(t, path) })
	}
}

func reproduce(t *testing.T, path string) {
	script, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(path)), "script.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]Key{}
	for _, match := range regexp.MustCompile(`seed: "([0-9a-f]{64})"`).FindAllStringSubmatch(string(script), -1) {
		key := seedKey(t, match[1])
		keys[key.Multikey] = key
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log := &Log{}
	previous := ""
	for line := range bytes.Lines(data) {
		created := reproduceEntry(t, log, previous, keys, line)
		log, previous = created.Log, created.VersionID
	}
}

func reproduceEntry(t *testing.T, log *Log, previous string, keys map[string]Key, line []byte) *Created {
	t.Helper()
	var want struct {
		VersionID   string
		VersionTime string
		Parameters  json.RawMessage
		State       json.RawMessage
		Proof       []struct{ VerificationMethod, ProofValue string }
	}
	if err := json.Unmarshal(line, &want); err != nil {
		t.Fatal(err)
	}
	at, err := did.ParseTime(want.VersionTime)
	if err != nil {
		t.Fatal(err)
	}
	_, multikey, _ := strings.Cut(want.Proof[0].VerificationMethod, "#")
	key, ok := keys[multikey]
	if !ok {
		t.Fatalf("no seed for %s", multikey)
	}
	var e *entry
	if previous == "" {
		var parameters struct{ SCID string }
		if err := json.Unmarshal(want.Parameters, &parameters); err != nil {
			t.Fatal(err)
		}
		template := func(raw json.RawMessage) []byte {
			return bytes.ReplaceAll(raw, []byte(parameters.SCID), []byte(placeholder))
		}
		e, previous, err = firstEntry(template(want.Parameters), template(want.State), at)
	} else {
		e, err = newEntry(want.Parameters, want.State, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	created, err := e.finish(t.Context(), log, previous, key)
	if err != nil {
		t.Fatal(err)
	}
	if created.VersionID != want.VersionID {
		t.Errorf("versionId %s, want %s", created.VersionID, want.VersionID)
	}
	if !bytes.Contains(created.Entry, []byte(want.Proof[0].ProofValue)) {
		t.Errorf("entry %s\nlacks the proofValue %s", created.Entry, want.Proof[0].ProofValue)
	}
	return created
}
