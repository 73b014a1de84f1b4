package webvh

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast"
	"holdfast/did"
	"holdfast/did/dataintegrity"
	"holdfast/internal/strictjson"
)

// maxBadProofs is how many witness proofs may fail before a file is given up: honest files have none.
const maxBadProofs = 1000

// Approve returns a witness's proof for the version with the given versionId, as it stands in did-witness.json. It
// implies that all versions before are approved too: a witness first verifies the log.
func Approve(ctx context.Context, versionID string, created time.Time, witness Key) (json.RawMessage, error) {
	text, err := json.Marshal(map[string]string{"versionId": versionID})
	if err != nil {
		return nil, bad("encode versionId: %w", err)
	}
	return witness.prove(ctx, text, created)
}

// CheckWitness verifies the approval of witnesses in proofs, the did-witness.json beside the log (nil if there is none).
// Every version that has to be approved needs proofs for itself or a later version by enough of its witnesses. When one
// lacks them, the returned log ends before it and its Problem says so; when it is the first, there is only an error, a
// did.Problem of type INVALID_DID. Proofs for versions that are not in the log are ignored.
func (l *Log) CheckWitness(proofs []byte, limits Limits) (*Log, error) {
	highest, err := l.approvals(proofs, limits.orDefault())
	if err != nil {
		return nil, did.Problemf(did.InvalidDID, "the proofs of the DID's witnesses cannot be read: %w", err)
	}
	for i, v := range l.versions {
		if !v.witness.active() || v.witness.approve(v.Number, highest) {
			continue
		}
		problem := holdfast.Errorf(holdfast.ErrInvalid, "", "version %d is not approved by %d of its witnesses", v.Number,
			v.witness.Threshold)
		if i == 0 {
			return nil, did.Problemf(did.InvalidDID, "the DID's log is not valid: %w", problem)
		}
		return &Log{versions: l.versions[:i:i], problem: problem}, nil
	}
	return l, nil
}

func (w *Witness) approve(number uint64, highest map[string]uint64) bool {
	count := 0
	for _, id := range w.Witnesses {
		if highest[id] >= number {
			count++
		}
	}
	return count >= w.Threshold
}

// claim is a proof that has not been verified yet.
type claim struct {
	number uint64
	proof  json.RawMessage
}

// approvals returns the highest version each witness has approved.
func (l *Log) approvals(file []byte, limits Limits) (map[string]uint64, error) {
	claims, err := l.claims(file, limits)
	if err != nil {
		return nil, err
	}
	highest := make(map[string]uint64, len(claims))
	failed := 0
	for id, list := range claims {
		// The highest valid proof decides, so the others need not be verified.
		slices.SortStableFunc(list, func(a, b claim) int { return int(int64(b.number) - int64(a.number)) })
		for _, c := range list {
			text := `{"versionId":"` + l.versions[c.number-1].ID + `"}`
			if _, _, err := verifyProof(c.proof, []byte(text)); err == nil {
				highest[id] = c.number
				break
			}
			if failed++; failed > maxBadProofs {
				return nil, bad("more than %d proofs do not verify", maxBadProofs)
			}
		}
	}
	return highest, nil
}

// claims returns the proofs for versions in the log by whom they say they are from.
func (l *Log) claims(file []byte, limits Limits) (map[string][]claim, error) {
	claims := map[string][]claim{}
	if len(file) == 0 {
		return claims, nil
	}
	if len(file) > limits.Witness {
		return nil, bad("the file has more than %d bytes", limits.Witness)
	}
	if err := strictjson.Check(file); err != nil {
		return nil, err
	}
	elements, err := strictjson.Array(file)
	if err != nil {
		return nil, err
	}
	witnesses := l.allWitnesses()
	for _, element := range elements {
		object, err := strictjson.Object(element)
		if err != nil {
			return nil, err
		}
		number, ok := l.numberOf(object["versionId"])
		if !ok || object["proof"] == nil {
			continue
		}
		proofs, err := strictjson.Array(object["proof"])
		if err != nil {
			return nil, err
		}
		for _, proof := range proofs {
			if id := claimedBy(proof); witnesses[id] {
				claims[id] = append(claims[id], claim{number, proof})
			}
		}
	}
	return claims, nil
}

func (l *Log) allWitnesses() map[string]bool {
	all := map[string]bool{}
	var previous *Witness
	for _, v := range l.versions {
		if v.witness == nil || v.witness == previous {
			continue
		}
		for _, id := range v.witness.Witnesses {
			all[id] = true
		}
		previous = v.witness
	}
	return all
}

// numberOf returns the number of the version with that versionId.
func (l *Log) numberOf(raw json.RawMessage) (uint64, bool) {
	text, err := strictjson.String(raw)
	if err != nil {
		return 0, false
	}
	prefix, _, _ := strings.Cut(text, "-")
	number, err := strconv.ParseUint(prefix, 10, 32)
	if err != nil || number == 0 || number > uint64(len(l.versions)) || l.versions[number-1].ID != text {
		return 0, false
	}
	return number, true
}

// claimedBy returns the did:key that a proof names, before anything is verified.
func claimedBy(proof json.RawMessage) string {
	object, err := strictjson.Object(proof)
	if err != nil {
		return ""
	}
	method, err := strictjson.String(object["verificationMethod"])
	if err != nil {
		return ""
	}
	id, _, _ := strings.Cut(method, "#")
	return id
}

// Key is an Ed25519 key that signs entries or approvals.
type Key struct {
	// Multikey is the public key, in base58btc.
	Multikey string

	// Sign makes its signatures. The message has 64 bytes; the signature is pure Ed25519.
	Sign dataintegrity.SignFunc
}

// prove returns a proof over a JSON object by the key, under its did:key.
func (k Key) prove(ctx context.Context, document []byte, created time.Time) (json.RawMessage, error) {
	pub, err := ed25519Key(k.Multikey)
	if err != nil {
		return nil, err
	}
	if k.Sign == nil {
		return nil, bad("there is nothing to sign with")
	}
	proof, err := dataintegrity.Create(ctx, document, pub, dataintegrity.Options{
		VerificationMethod: "did:key:" + k.Multikey + "#" + k.Multikey, Created: created,
	}, k.Sign)
	if err != nil {
		return nil, err
	}
	return json.Marshal(proof)
}
