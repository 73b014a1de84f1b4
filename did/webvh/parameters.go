package webvh

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"

	"holdfast"
	"holdfast/did/key"
	"holdfast/internal/pubkey"
	"holdfast/internal/strictjson"
)

// Bounds that no honest log comes near. They keep the work per entry linear in its size.
const (
	maxKeys      = 256
	maxWitnesses = 256
	maxTTL       = 1 << 31
	defaultTTL   = 3600
)

// Witness says who has to approve entries: Threshold of the Witnesses, which are did:key of Ed25519 keys.
type Witness struct {
	Threshold int
	Witnesses []string
}

// active reports whether entries need approval at all.
func (w *Witness) active() bool { return w != nil && len(w.Witnesses) > 0 }

type witnessID struct {
	ID string `json:"id"`
}

type witnessJSON struct {
	Threshold int         `json:"threshold"`
	Witnesses []witnessID `json:"witnesses"`
}

// MarshalJSON returns {"threshold":n,"witnesses":[{"id":"did:key:…"}]}, or {} when there are no witnesses.
func (w Witness) MarshalJSON() ([]byte, error) {
	if !w.active() {
		return []byte("{}"), nil
	}
	out := witnessJSON{Threshold: w.Threshold}
	for _, id := range w.Witnesses {
		out.Witnesses = append(out.Witnesses, witnessID{id})
	}
	return json.Marshal(out)
}

// Parameters are the settings in effect after an entry (did:webvh 1.0, section DID Method Parameters).
type Parameters struct {
	// SCID is the log's self-certifying identifier.
	SCID string

	// UpdateKeys are the multikeys that may sign: the next entry, or with pre-rotation the entry they stand in.
	UpdateKeys []string

	// NextKeyHashes are the commitments ([KeyHash]) to the next entry's update keys. Pre-rotation is on while there are any.
	NextKeyHashes []string

	// Witness is who has to approve the next entry.
	Witness Witness

	// Watchers are the URLs of watchers.
	Watchers []string

	// Portable says whether the DID may move to another location.
	Portable bool

	// Deactivated says that the DID is no longer in use, and that the log ends.
	Deactivated bool

	// TTL is how long a resolution may be cached, in seconds.
	TTL uint32
}

// changes are the parameters one entry states. nil means not stated.
type changes struct {
	method        string
	scid          string
	updateKeys    []string
	nextKeyHashes []string
	witness       *Witness
	watchers      []string
	portable      *bool
	deactivated   *bool
	ttl           *uint32
}

func parseChanges(raw json.RawMessage) (*changes, error) {
	members, err := strictjson.Object(raw)
	if err != nil {
		return nil, bad("parameters are an object")
	}
	c := &changes{}
	for name, value := range members {
		if err := c.read(name, value); err != nil {
			return nil, bad("parameter %.40q: %w", name, err)
		}
	}
	return c, nil
}

// read takes one parameter. null stands for the default, as early implementations wrote it (section General Rules).
func (c *changes) read(name string, value json.RawMessage) (err error) {
	null := strictjson.IsNull(value)
	switch name {
	case "method":
		c.method, err = strictjson.String(value)
	case "scid":
		c.scid, err = strictjson.String(value)
	case "updateKeys":
		c.updateKeys, err = readSet(value, null, isUpdateKey)
	case "nextKeyHashes":
		c.nextKeyHashes, err = readSet(value, null, func(string) bool { return true })
	case "watchers":
		c.watchers, err = readSet(value, null, func(s string) bool { return strings.Contains(s, ":") })
	case "witness":
		if c.witness = new(Witness); !null {
			c.witness, err = parseWitness(value)
		}
	case "portable":
		c.portable, err = readBool(value)
	case "deactivated":
		c.deactivated, err = readBool(value)
	case "ttl":
		n := uint64(defaultTTL)
		if !null {
			n, err = strictjson.Uint(value, maxTTL)
		}
		c.ttl = new(uint32(n))
	default:
		err = bad("%s has no such parameter", specVersion)
	}
	return err
}

func readBool(value json.RawMessage) (*bool, error) {
	b, err := strictjson.Bool(value)
	return &b, err
}

// readSet returns an array of different strings; it is never nil.
func readSet(value json.RawMessage, null bool, allowed func(string) bool) ([]string, error) {
	if null {
		return []string{}, nil
	}
	list, err := strictjson.Strings(value)
	if err != nil {
		return nil, err
	}
	if len(list) > maxKeys {
		return nil, bad("there are more than %d", maxKeys)
	}
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if s == "" || seen[s] || !allowed(s) {
			return nil, bad("%.80q is not allowed here or stands here twice", s)
		}
		seen[s] = true
	}
	return list, nil
}

// isUpdateKey is lenient about the kind of key: logs may list keys of kinds to come, but only Ed25519 ones sign.
func isUpdateKey(s string) bool { return strings.HasPrefix(s, "z") }

func parseWitness(raw json.RawMessage) (*Witness, error) {
	members, err := strictjson.Object(raw)
	if err != nil || len(members) == 0 {
		return &Witness{}, err
	}
	elements, err := strictjson.Array(members["witnesses"])
	if err != nil {
		return nil, err
	}
	threshold, err := strictjson.Uint(members["threshold"], maxWitnesses)
	if err != nil {
		return nil, err
	}
	w := &Witness{Threshold: int(threshold)}
	for _, element := range elements {
		object, err := strictjson.Object(element)
		if err != nil {
			return nil, err
		}
		id, err := strictjson.String(object["id"])
		if err != nil {
			return nil, err
		}
		w.Witnesses = append(w.Witnesses, id)
	}
	return w, w.check()
}

// check says whether the threshold can be met and the witnesses are different did:key of Ed25519 keys.
func (w *Witness) check() error {
	if w.Threshold < 1 || w.Threshold > len(w.Witnesses) || len(w.Witnesses) > maxWitnesses {
		return bad("the threshold of witnesses is between 1 and their number, at most %d", maxWitnesses)
	}
	seen := make(map[string]bool, len(w.Witnesses))
	for _, id := range w.Witnesses {
		pub, err := key.PublicKey(id)
		if err != nil {
			return err
		}
		if _, ok := pub.(ed25519.PublicKey); !ok {
			return bad("witness %s is not an Ed25519 key", id)
		}
		if seen[id] {
			return bad("witness %s stands there twice", id)
		}
		seen[id] = true
	}
	return nil
}

// first returns the parameters after the first entry.
func (c *changes) first() (*Parameters, error) {
	switch {
	case c.method != specVersion:
		return nil, bad("the method is %.40q, not %s", c.method, specVersion)
	case !isMultihash(c.scid):
		return nil, bad("the scid is not a SHA-256 multihash in base58btc")
	case len(c.updateKeys) == 0:
		return nil, bad("the first entry has updateKeys")
	}
	p := &Parameters{SCID: c.scid, TTL: defaultTTL}
	if c.portable != nil {
		p.Portable = *c.portable
	}
	c.apply(p)
	return p, nil
}

// after returns the parameters after an entry that follows p. With pre-rotation on, it checks the commitments.
func (c *changes) after(p *Parameters) (*Parameters, error) {
	switch {
	case c.method != "" && c.method != specVersion:
		return nil, bad("the method changes to %.40q, which is not supported", c.method)
	case c.scid != "":
		return nil, bad("only the first entry has a scid")
	case c.portable != nil && *c.portable && !p.Portable:
		return nil, bad("portable can be true from the first entry on only")
	}
	if len(p.NextKeyHashes) > 0 {
		if err := c.checkCommitments(p.NextKeyHashes); err != nil {
			return nil, err
		}
	}
	next := *p
	if c.portable != nil {
		next.Portable = *c.portable
	}
	c.apply(&next)
	return &next, nil
}

// checkCommitments enforces pre-rotation: the new keys were committed to, and the next ones are.
func (c *changes) checkCommitments(hashes []string) error {
	if c.updateKeys == nil || c.nextKeyHashes == nil {
		return bad("with pre-rotation on, every entry has updateKeys and nextKeyHashes")
	}
	for _, multikey := range c.updateKeys {
		if !slices.Contains(hashes, KeyHash(multikey)) {
			return bad("the previous entry does not commit to update key %.80q", multikey)
		}
	}
	return nil
}

func (c *changes) apply(p *Parameters) {
	if c.updateKeys != nil {
		p.UpdateKeys = c.updateKeys
	}
	if c.nextKeyHashes != nil {
		p.NextKeyHashes = c.nextKeyHashes
	}
	if c.witness != nil {
		p.Witness = *c.witness
	}
	if c.watchers != nil {
		p.Watchers = c.watchers
	}
	if c.deactivated != nil {
		p.Deactivated = *c.deactivated
	}
	if c.ttl != nil {
		p.TTL = *c.ttl
	}
}

// json returns the parameters as an entry states them.
func (c *changes) json() (json.RawMessage, error) {
	out := map[string]any{}
	for name, value := range map[string]string{"method": c.method, "scid": c.scid} {
		if value != "" {
			out[name] = value
		}
	}
	for name, list := range map[string][]string{
		"updateKeys": c.updateKeys, "nextKeyHashes": c.nextKeyHashes, "watchers": c.watchers,
	} {
		if list != nil {
			out[name] = list
		}
	}
	if c.witness != nil {
		out["witness"] = c.witness
	}
	for name, flag := range map[string]*bool{"portable": c.portable, "deactivated": c.deactivated} {
		if flag != nil {
			out[name] = *flag
		}
	}
	if c.ttl != nil {
		out["ttl"] = *c.ttl
	}
	return json.Marshal(out)
}

// ed25519Key returns the key of an update key or witness in the one spelling that may sign.
func ed25519Key(multikey string) (ed25519.PublicKey, error) {
	if !strings.HasPrefix(multikey, "z") {
		return nil, bad("the multikey is not in base58btc")
	}
	pub, err := pubkey.ParseMultikey(multikey)
	if err != nil {
		return nil, err
	}
	signing, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, bad("%s signs with Ed25519 keys only", specVersion)
	}
	return signing, nil
}

// bad returns an ErrInvalid; the verification of a log adds which entry it is about.
func bad(format string, args ...any) error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", format, args...)
}
