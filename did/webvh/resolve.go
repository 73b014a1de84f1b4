package webvh

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"holdfast"
	"holdfast/did"
)

// Resolver resolves did:webvh from the web. It caches nothing. Its fields are not changed once in use.
type Resolver struct {
	// Fetcher gets logs and witness proofs. Required.
	Fetcher did.Fetcher

	// Limits bounds what is read. Zero fields mean the defaults.
	Limits Limits

	// Now returns the time against which entries from the future are refused. Nil means time.Now.
	Now func() time.Time
}

var _ did.Resolver = (*Resolver)(nil)

// Resolve fetches the log of a DID, and did-witness.json if the log asks for it, verifies both and returns the version
// that options ask for. Whatever makes the DID invalid is a did.Problem of type INVALID_DID, with one exception that the
// specification makes: a version before the first entry that does not verify can be asked for by id, number or time.
func (r *Resolver) Resolve(ctx context.Context, s string, options *did.ResolveOptions) (*did.Resolution, error) {
	location, err := Parse(s)
	if err != nil {
		return nil, err
	}
	if err := options.Check(); err != nil {
		return nil, err
	}
	text, err := r.Fetcher.Fetch(ctx, location.LogURL())
	if err != nil {
		return nil, fetchError(err)
	}
	verify := &VerifyOptions{Limits: r.Limits}
	if r.Now != nil {
		verify.Now = r.Now()
	}
	log, err := Verify(ctx, s, text, verify)
	if err != nil {
		return nil, err
	}
	if log.NeedsWitness() {
		if log, err = r.checkWitness(ctx, location, log); err != nil {
			return nil, err
		}
	}
	return log.Resolve(options)
}

func (r *Resolver) checkWitness(ctx context.Context, location *Location, log *Log) (*Log, error) {
	proofs, err := r.Fetcher.Fetch(ctx, location.WitnessURL())
	if err != nil && !errors.Is(err, holdfast.ErrNotFound) {
		return nil, fetchError(err)
	}
	return log.CheckWitness(proofs, r.Limits)
}

// fetchError makes a missing log a problem; other errors are not about the DID.
func fetchError(err error) error {
	if errors.Is(err, holdfast.ErrNotFound) {
		return did.Problemf(did.NotFound, "there is no log where the DID points: %w", err)
	}
	return err
}

// Resolve returns the version of a verified log that options ask for; nil asks for the latest. For a log with witnesses,
// that is for one [Log.CheckWitness] has returned.
func (l *Log) Resolve(options *did.ResolveOptions) (*did.Resolution, error) {
	if err := options.Check(); err != nil {
		return nil, err
	}
	version, err := l.pick(options)
	if err != nil {
		return nil, err
	}
	text, err := withServices(version.State, version.DID)
	if err != nil {
		return nil, err
	}
	document, err := did.ParseDocument(text)
	if err != nil {
		return nil, err
	}
	metadata, err := l.metadata(version)
	if err != nil {
		return nil, err
	}
	return &did.Resolution{
		JSON: text, Document: document, DocumentMetadata: *metadata,
		Metadata: did.ResolutionMetadata{ContentType: did.MediaType},
	}, nil
}

func (l *Log) pick(options *did.ResolveOptions) (Version, error) {
	index := -1
	switch {
	case options.Latest():
		if l.problem == nil {
			return l.Latest(), nil
		}
	case options.VersionID != "":
		index = slices.IndexFunc(l.versions, func(v Version) bool { return v.ID == options.VersionID })
	case options.VersionNumber != 0:
		if options.VersionNumber <= uint64(len(l.versions)) {
			index = int(options.VersionNumber) - 1
		}
	default:
		next, _ := slices.BinarySearchFunc(l.versions, options.VersionTime, func(v Version, t time.Time) int {
			if v.at.After(t) {
				return 1
			}
			return -1
		})
		index = next - 1
		if next == 0 {
			return Version{}, did.Problemf(did.NotFound, "the DID did not exist at that time")
		}
		// What came next, and when, is not known when the entry for it does not verify.
		if next == len(l.versions) && l.problem != nil {
			index = -1
		}
	}
	switch {
	case index >= 0:
		return l.versions[index], nil
	case l.problem != nil:
		return Version{}, did.Problemf(did.InvalidDID, "the DID's log is not valid: %w", l.problem)
	default:
		return Version{}, did.Problemf(did.NotFound, "the DID has no such version")
	}
}

// metadata describes a version. What is about the DID rather than the version comes from the latest one.
func (l *Log) metadata(v Version) (*did.DocumentMetadata, error) {
	latest := l.Latest().Parameters
	witness, err := witnessMetadata(latest.Witness)
	if err != nil {
		return nil, err
	}
	return &did.DocumentMetadata{
		Created:       l.versions[0].Time,
		Updated:       v.Time,
		Deactivated:   latest.Deactivated,
		VersionID:     v.ID,
		VersionTime:   v.Time,
		VersionNumber: v.Number,
		SCID:          latest.SCID,
		Portable:      new(latest.Portable),
		TTL:           strconv.FormatUint(uint64(latest.TTL), 10),
		Witness:       witness,
		Watchers:      latest.Watchers,
	}, nil
}

// witnessMetadata writes the threshold as a string, because metadata has no integers.
func witnessMetadata(w Witness) (json.RawMessage, error) {
	if !w.active() {
		return nil, nil
	}
	ids := make([]witnessID, len(w.Witnesses))
	for i, id := range w.Witnesses {
		ids[i] = witnessID{id}
	}
	return json.Marshal(struct {
		Threshold string      `json:"threshold"`
		Witnesses []witnessID `json:"witnesses"`
	}{strconv.Itoa(w.Threshold), ids})
}
