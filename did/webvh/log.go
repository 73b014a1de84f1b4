package webvh

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast"
	"holdfast/did"
)

// Limits bounds what is read. Zero fields mean the defaults.
type Limits struct {
	// Line is the longest entry, in bytes. The default is 256 KiB.
	Line int

	// Entries is the largest number of entries. The default is 100,000.
	Entries int

	// Witness is the longest did-witness.json, in bytes. The default is 8 MiB.
	Witness int
}

func (l Limits) orDefault() Limits {
	if l.Line == 0 {
		l.Line = did.MaxDocument
	}
	if l.Entries == 0 {
		l.Entries = 100_000
	}
	if l.Witness == 0 {
		l.Witness = 8 << 20
	}
	return l
}

// VerifyOptions are for [Verify].
type VerifyOptions struct {
	// Now is the time against which entries from the future are refused. Zero means the computer's clock.
	Now time.Time

	// Limits bounds what is read.
	Limits Limits
}

// maxAhead is how far clocks may differ.
const maxAhead = 5 * time.Minute

// Version is one verified version of a DID.
type Version struct {
	// ID is the versionId: number, hyphen, entry hash.
	ID string

	// Number is the version number, counted from 1.
	Number uint64

	// Time is the versionTime, in UTC, as the log writes it.
	Time string

	// State is the DID document as it stands in the log.
	State json.RawMessage

	// DID is the id of the state. It changes when the DID moves.
	DID string

	// Parameters are the settings in effect after this version. Shared; not to be changed.
	Parameters *Parameters

	at      time.Time
	witness *Witness // who had to approve this version; nil for nobody
}

// Log is a verified log. It is not changed once made.
type Log struct {
	versions []Version
	problem  error
}

// Versions returns the verified versions, the first one first. There is at least one.
func (l *Log) Versions() []Version { return slices.Clone(l.versions) }

// Latest returns the last verified version.
func (l *Log) Latest() Version { return l.versions[len(l.versions)-1] }

// Problem returns what is wrong with the entry after the last verified one, nil when the whole log verifies. The versions
// before it stand, but nobody knows whether Latest is the latest.
func (l *Log) Problem() error { return l.problem }

// NeedsWitness reports whether any version has to be approved by witnesses. [Log.CheckWitness] has to be called then.
func (l *Log) NeedsWitness() bool {
	return slices.ContainsFunc(l.versions, func(v Version) bool { return v.witness.active() })
}

// Verify reads the log of a DID, did.jsonl, and verifies it: SCID, hash chain, proofs, authorized keys, pre-rotation,
// times, moves and deactivation (did:webvh 1.0, section Read). Approval by witnesses is left to [Log.CheckWitness]. The
// time it takes is linear in the length of the log.
//
// It returns a did.Problem of type INVALID_DID when not even the first entry verifies, or when the DID is not one the log
// has ever had. When a later entry does not verify, the log ends before it and [Log.Problem] says why. ctx is looked at
// between some hundred entries; when it has ended, Verify returns ctx.Err().
func Verify(ctx context.Context, s string, log []byte, options *VerifyOptions) (*Log, error) {
	requested, err := Parse(s)
	if err != nil {
		return nil, err
	}
	var o VerifyOptions
	if options != nil {
		o = *options
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	verified, err := readLog(ctx, log, o)
	if err != nil {
		return nil, err
	}
	if len(verified.versions) == 0 {
		return nil, did.Problemf(did.InvalidDID, "the DID's log is not valid: %w", verified.problem)
	}
	if !verified.knows(requested) {
		return nil, did.Problemf(did.InvalidDID, "the log is not that of %s", s)
	}
	return verified, nil
}

// knows reports whether some version has the DID.
func (l *Log) knows(requested *Location) bool {
	previous := ""
	for _, v := range l.versions {
		if v.DID == previous {
			continue
		}
		previous = v.DID
		if location, err := Parse(v.DID); err == nil && location.equal(requested) {
			return true
		}
	}
	return false
}

// batchSize is how many entries are parsed at once: enough to keep all processors busy, few enough that a log with an
// error at its start costs little.
const batchSize = 256

// readLog verifies entries until the log ends or one is not valid.
func readLog(ctx context.Context, log []byte, o VerifyOptions) (*Log, error) {
	verified := &Log{}
	rest := bytes.TrimSuffix(log, []byte("\n"))
	if len(rest) == 0 {
		verified.problem = bad("the log is empty")
		return verified, nil
	}
	for more := true; more && verified.problem == nil; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var lines [][]byte
		for more && len(lines) < batchSize {
			var line []byte
			line, rest, more = bytes.Cut(rest, []byte("\n"))
			lines = append(lines, bytes.TrimSuffix(line, []byte("\r")))
		}
		verified.addBatch(lines, o)
	}
	return verified, nil
}

// addBatch adds lines up to the first one that is not valid, and sets the problem then.
func (l *Log) addBatch(lines [][]byte, o VerifyOptions) {
	limits := o.Limits.orDefault()
	for _, parsed := range parseBatch(lines, limits.Line) {
		err := parsed.err
		if err == nil && len(l.versions) >= limits.Entries {
			err = bad("the log has more than %d entries", limits.Entries)
		}
		if err == nil {
			err = l.add(parsed.entry, o.Now)
		}
		if err != nil {
			l.problem = holdfast.Errorf(holdfast.ErrInvalid, "", "entry %d: %w", len(l.versions)+1, err)
			return
		}
	}
}

type parsedEntry struct {
	entry *entry
	err   error
}

// parseBatch parses lines on all processors. An entry's signature does not depend on the entries before it, so this is
// where nearly all time goes.
func parseBatch(lines [][]byte, maxLine int) []parsedEntry {
	results := make([]parsedEntry, len(lines))
	workers := min(runtime.GOMAXPROCS(0), len(lines))
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < len(lines); i += workers {
				if len(lines[i]) > maxLine {
					results[i].err = bad("it has more than %d bytes", maxLine)
					continue
				}
				results[i].entry, results[i].err = parseEntry(lines[i])
			}
		})
	}
	group.Wait()
	return results
}

// add verifies what an entry owes to those before it, and adds it.
func (l *Log) add(e *entry, now time.Time) error {
	version, err := l.following(e, now)
	if err == nil {
		l.versions = append(l.versions, version)
	}
	return err
}

// following returns the version that an entry adds to the log.
func (l *Log) following(e *entry, now time.Time) (Version, error) {
	if e.number != uint64(len(l.versions))+1 {
		return Version{}, bad("the version number is %d", e.number)
	}
	if e.time.After(now.Add(maxAhead)) {
		return Version{}, bad("the versionTime %s is in the future", e.versionTime)
	}
	var parameters *Parameters
	var err error
	if len(l.versions) == 0 {
		parameters, err = e.checkFirst()
	} else {
		parameters, err = e.checkNext(&l.versions[len(l.versions)-1])
	}
	if err != nil {
		return Version{}, err
	}
	return Version{
		ID: e.versionID, Number: e.number, Time: e.versionTime, State: e.state, DID: e.id, Parameters: parameters,
		at: e.time, witness: l.witnessFor(parameters),
	}, nil
}

// witnessFor returns who has to approve an entry: the witnesses before it, or when there were none, its own.
func (l *Log) witnessFor(parameters *Parameters) *Witness {
	if len(l.versions) > 0 {
		if before := &l.Latest().Parameters.Witness; before.active() {
			return before
		}
	}
	if parameters.Witness.active() {
		return &parameters.Witness
	}
	return nil
}

func (e *entry) checkFirst() (*Parameters, error) {
	parameters, err := e.changes.first()
	if err != nil {
		return nil, err
	}
	if err := e.checkSCID(parameters.SCID); err != nil {
		return nil, err
	}
	if err := e.checkHash(parameters.SCID); err != nil {
		return nil, err
	}
	location, err := Parse(e.id)
	if err != nil {
		return nil, err
	}
	if location.SCID != parameters.SCID {
		return nil, bad("the id of the state does not have the log's SCID")
	}
	return parameters, e.checkSigners(parameters.UpdateKeys)
}

func (e *entry) checkNext(previous *Version) (*Parameters, error) {
	before := previous.Parameters
	if before.Deactivated {
		return nil, bad("the DID was deactivated before")
	}
	if !e.time.After(previous.at) {
		return nil, bad("the versionTime is not after that of the entry before")
	}
	if err := e.checkHash(previous.ID); err != nil {
		return nil, err
	}
	parameters, err := e.changes.after(before)
	if err != nil {
		return nil, err
	}
	if e.id != previous.DID {
		if err := e.checkMove(previous); err != nil {
			return nil, err
		}
	}
	authorized := before.UpdateKeys
	if len(before.NextKeyHashes) > 0 {
		authorized = parameters.UpdateKeys
	}
	return parameters, e.checkSigners(authorized)
}

// checkMove verifies a change of the DID (section DID Portability).
func (e *entry) checkMove(previous *Version) error {
	if !previous.Parameters.Portable {
		return bad("the DID changes to %.120q, but it is not portable", e.id)
	}
	location, err := Parse(e.id)
	if err != nil {
		return err
	}
	if location.SCID != previous.Parameters.SCID {
		return bad("the DID moves to another SCID")
	}
	if !slices.Contains(e.alsoKnownAs, previous.DID) {
		return bad("a DID that moves has its former self in alsoKnownAs")
	}
	return nil
}

func (e *entry) checkSigners(authorized []string) error {
	for _, signer := range e.signers {
		if !slices.Contains(authorized, signer) {
			return bad("the proof is by %s, which is not authorized: the update keys are %.200s", signer, strings.Join(authorized, ", "))
		}
	}
	return nil
}
