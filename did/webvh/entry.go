package webvh

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"holdfast/did"
	"holdfast/did/dataintegrity"
	"holdfast/internal/strictjson"

	"github.com/gowebpki/jcs"
)

// maxProofs bounds the signatures that are verified for one entry.
const maxProofs = 16

// entry is one log entry that is well-formed and whose proofs are made by the keys they name. Whether these keys may
// sign is for the log to say.
type entry struct {
	versionID   string
	number      uint64
	versionTime string
	time        time.Time
	changes     *changes
	state       json.RawMessage // as it stands in the log
	id          string          // of the state
	alsoKnownAs []string
	signers     []string // multikeys

	// Canonical forms, of which every hash is made.
	canonicalParameters, canonicalState []byte
}

// parseEntry reads a line of the log and verifies its proofs.
func parseEntry(line []byte) (*entry, error) {
	if err := strictjson.Check(line); err != nil {
		return nil, err
	}
	members, err := strictjson.Object(line)
	if err != nil {
		return nil, err
	}
	for name := range members {
		switch name {
		case "versionId", "versionTime", "parameters", "state", "proof":
		default:
			return nil, bad("an entry has no member %.40q", name)
		}
	}
	e := &entry{state: members["state"]}
	if err := e.readVersion(members); err != nil {
		return nil, err
	}
	if err := e.readContent(members["parameters"], members["state"]); err != nil {
		return nil, err
	}
	if err := e.canonicalize(members["parameters"], members["state"]); err != nil {
		return nil, err
	}
	return e, e.readProofs(members["proof"])
}

func (e *entry) readVersion(members map[string]json.RawMessage) (err error) {
	if e.versionID, err = strictjson.String(members["versionId"]); err != nil {
		return bad("versionId is a string")
	}
	number, hash, ok := strings.Cut(e.versionID, "-")
	e.number, err = strconv.ParseUint(number, 10, 32)
	if !ok || err != nil || strconv.FormatUint(e.number, 10) != number || !isMultihash(hash) {
		return bad("versionId is a number, a hyphen and a SHA-256 multihash in base58btc, not %.80q", e.versionID)
	}
	if e.versionTime, err = strictjson.String(members["versionTime"]); err != nil {
		return bad("versionTime is a string")
	}
	e.time, err = did.ParseTime(e.versionTime)
	return err
}

// readContent reads what decides about the entry's validity in parameters and state.
func (e *entry) readContent(parameters, document json.RawMessage) (err error) {
	if e.changes, err = parseChanges(parameters); err != nil {
		return err
	}
	state, err := strictjson.Object(document)
	if err != nil {
		return bad("the state is an object")
	}
	if e.id, err = strictjson.String(state["id"]); err != nil {
		return bad("the state has an id, which is a string")
	}
	if raw, has := state["alsoKnownAs"]; has {
		if e.alsoKnownAs, err = strictjson.Strings(raw); err != nil {
			return bad("alsoKnownAs of the state is an array of strings")
		}
	}
	return nil
}

func (e *entry) canonicalize(parameters, state json.RawMessage) (err error) {
	if e.canonicalParameters, err = jcs.Transform(parameters); err != nil {
		return bad("canonicalize parameters: %w", err)
	}
	if e.canonicalState, err = jcs.Transform(state); err != nil {
		return bad("canonicalize state: %w", err)
	}
	return nil
}

// canonical returns the canonical form of the entry without its proof and with the given versionId, which is plain
// ASCII. The members of an entry are in this order.
func (e *entry) canonical(versionID string) []byte {
	var b bytes.Buffer
	b.Grow(len(e.canonicalParameters) + len(e.canonicalState) + len(versionID) + len(e.versionTime) + 64)
	b.WriteString(`{"parameters":`)
	b.Write(e.canonicalParameters)
	b.WriteString(`,"state":`)
	b.Write(e.canonicalState)
	b.WriteString(`,"versionId":"`)
	b.WriteString(versionID)
	b.WriteString(`","versionTime":"`)
	b.WriteString(e.versionTime)
	b.WriteString(`"}`)
	return b.Bytes()
}

// checkHash verifies the entry hash in versionId; previous is the versionId before, for the first entry the SCID.
func (e *entry) checkHash(previous string) error {
	if want := strconv.FormatUint(e.number, 10) + "-" + multihash(e.canonical(previous)); want != e.versionID {
		return bad("the entry hash does not verify: the entry or one before it was changed")
	}
	return nil
}

// checkSCID verifies that scid is the hash of the first entry (section Verify SCID).
func (e *entry) checkSCID(scid string) error {
	text := bytes.ReplaceAll(e.canonical(placeholder), []byte(scid), []byte(placeholder))
	// The replacement can change the order of members whose names contain the SCID.
	canonical, err := jcs.Transform(text)
	if err != nil {
		return bad("canonicalize first entry: %w", err)
	}
	if multihash(canonical) != scid {
		return bad("the SCID is not the hash of the first entry")
	}
	return nil
}

// readProofs verifies every proof under the key it names.
func (e *entry) readProofs(raw json.RawMessage) error {
	proofs, err := proofList(raw)
	if err != nil {
		return err
	}
	canonical := e.canonical(e.versionID)
	for _, element := range proofs {
		proof, multikey, err := verifyProof(element, canonical)
		if err != nil {
			return err
		}
		if proof.ExpiredAt(e.time) {
			return bad("a proof had expired at the time of its entry")
		}
		e.signers = append(e.signers, multikey)
	}
	return nil
}

// proofList returns the proofs in an array; the schema allows a single one without an array too.
func proofList(raw json.RawMessage) ([]json.RawMessage, error) {
	if raw == nil {
		return nil, bad("there is no proof")
	}
	if raw[0] == '{' {
		return []json.RawMessage{raw}, nil
	}
	list, err := strictjson.Array(raw)
	if err != nil {
		return nil, bad("proof is an array")
	}
	if len(list) == 0 || len(list) > maxProofs {
		return nil, bad("there are 1 to %d proofs, not %d", maxProofs, len(list))
	}
	return list, nil
}

// verifyProof verifies a proof over a canonical text under the did:key it names, and returns that key's multikey.
func verifyProof(raw json.RawMessage, canonical []byte) (*dataintegrity.Received, string, error) {
	proof, err := dataintegrity.Receive(raw)
	if err != nil {
		return nil, "", err
	}
	if proof.Cryptosuite != dataintegrity.EdDSA {
		return nil, "", bad("the cryptosuite is %.40q, not %s", proof.Cryptosuite, dataintegrity.EdDSA)
	}
	if proof.ProofPurpose != string(did.AssertionMethod) {
		return nil, "", bad("the proofPurpose is %.40q, not %s", proof.ProofPurpose, did.AssertionMethod)
	}
	rest, ok := strings.CutPrefix(proof.VerificationMethod, "did:key:")
	multikey, fragment, hasFragment := strings.Cut(rest, "#")
	if !ok || !hasFragment || multikey != fragment {
		return nil, "", bad("the verificationMethod of a proof is did:key:X#X, not %.120q", proof.VerificationMethod)
	}
	pub, err := ed25519Key(multikey)
	if err != nil {
		return nil, "", err
	}
	if err := proof.VerifyCanonical(canonical, pub); err != nil {
		return nil, "", err
	}
	return proof, multikey, nil
}
