package store

import (
	"context"
	"database/sql"
	"time"

	"holdfast"
)

// DID is a DID and all that is needed to publish and change it.
type DID struct {
	DID      string
	Method   string // "webvh"
	Log      string // the method's log of changes (did.jsonl); empty where the method has none
	Document string // the current DID document, JSON
	URL      string // where the log is published; empty for a DID that is not published. No two DIDs have the same
	Created  time.Time
	Updated  time.Time
	Version  int64 // 0 before it is put the first time, one more at every change
	Keys     []DIDKey
}

// DIDKey says what a key does for a DID.
type DIDKey struct {
	KeyID    ID
	Role     string // "control", "next", "authentication"
	Fragment string // of the verification method in the document, without '#'; empty when it is not in there
}

const (
	didColumns = `did, method, log, document, url, created, updated, version`

	queryDID = `SELECT d.did, d.method, d.log, d.document, d.url, d.created, d.updated, d.version,
		k.key_id, k.role, k.fragment
		FROM dids d LEFT JOIN did_keys k ON k.did = d.did WHERE d.did = ? ORDER BY k.rowid`
	queryDIDByURL = `SELECT ` + didColumns + ` FROM dids WHERE url = ?`
	countDIDs     = `SELECT count(*) FROM dids`
	queryDIDs     = `SELECT ` + didColumns + ` FROM dids WHERE did > ? ORDER BY did LIMIT ?`
	queryKeyDIDs  = `SELECT DISTINCT did FROM did_keys WHERE key_id = ? ORDER BY did`
	insertDID     = `INSERT INTO dids (` + didColumns + `) VALUES (?,?,?,?,nullif(?,''),?,?,1)`
	updateDID     = `UPDATE dids SET method = ?, log = ?, document = ?, url = nullif(?,''), updated = ?,
		version = version + 1 WHERE did = ? AND version = ?`
	deleteDIDKeys = `DELETE FROM did_keys WHERE did = ?`
	insertDIDKey  = `INSERT INTO did_keys (did, key_id, role, fragment) VALUES (?,?,?,?)`
)

// PutDID adds d when d.Version is 0 and changes the stored one otherwise, its keys included. It returns ErrExists when a
// new one is there already, ErrState when the stored one no longer has d.Version: read it again and decide anew. Created
// is written the first time only.
func (s *Store) PutDID(ctx context.Context, d DID) error {
	return s.writer.do(ctx, "store DID", func(t *transaction) error {
		if err := putDID(t, d); err != nil {
			return err
		}
		if err := t.exec(deleteDIDKeys, d.DID); err != nil {
			return err
		}
		for _, k := range d.Keys {
			if err := t.exec(insertDIDKey, d.DID, k.KeyID[:], k.Role, k.Fragment); err != nil {
				return err
			}
		}
		return nil
	})
}

func putDID(t *transaction, d DID) error {
	if d.Version == 0 {
		err := t.exec(insertDID, d.DID, d.Method, d.Log, d.Document, d.URL, d.Created.UnixNano(), d.Updated.UnixNano())
		if isUnique(err, "dids.did") {
			return holdfast.Errorf(holdfast.ErrExists, "store DID", "%s is stored already", d.DID)
		}
		if isUnique(err, "dids.url") {
			return holdfast.Errorf(holdfast.ErrExists, "store DID", "another DID is published at %s already", d.URL)
		}
		return err
	}
	n, err := t.changed(updateDID, d.Method, d.Log, d.Document, d.URL, d.Updated.UnixNano(), d.DID, d.Version)
	if err == nil && n == 0 {
		return holdfast.Errorf(holdfast.ErrState, "store DID",
			"%s was changed by somebody else meanwhile, or is not stored: read it again", d.DID)
	}
	return err
}

// DID returns what is stored of a DID, ErrNotFound if nothing is.
func (s *Store) DID(ctx context.Context, did string) (DID, error) {
	var d DID
	var keys []DIDKey
	err := s.query(ctx, "read DID", queryDID, func(rows *sql.Rows) (err error) { // one query, for one version of both
		var id []byte
		var role, fragment sql.NullString
		d, err = scanDID(rows, &id, &role, &fragment)
		if err == nil && id != nil {
			k := DIDKey{Role: role.String, Fragment: fragment.String}
			copy(k.KeyID[:], id)
			keys = append(keys, k)
		}
		return err
	}, did)
	if err == nil && d.DID == "" {
		err = holdfast.Errorf(holdfast.ErrNotFound, "", "%s is not one of the DIDs held here", did)
	}
	if err != nil {
		return DID{}, err
	}
	d.Keys = keys
	return d, nil
}

// DIDByURL returns the DID that is published at url, without its Keys; ErrNotFound if none is.
func (s *Store) DIDByURL(ctx context.Context, url string) (DID, error) {
	var d DID
	err := s.query(ctx, "read DID", queryDIDByURL, func(rows *sql.Rows) (err error) {
		d, err = scanDID(rows)
		return err
	}, url)
	if err == nil && d.DID == "" {
		err = holdfast.Errorf(holdfast.ErrNotFound, "", "no DID is published at %s", url)
	}
	return d, err
}

// CountDIDs returns how many DIDs there are. It reads the database, and so shows that this is possible.
func (s *Store) CountDIDs(ctx context.Context) (n int, err error) {
	err = s.query(ctx, "count DIDs", countDIDs, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n, err
}

// DIDs returns up to limit DIDs in order, those after the DID after. Their Keys are nil; [Store.DID] reads them.
func (s *Store) DIDs(ctx context.Context, after string, limit int) ([]DID, error) {
	var dids []DID
	err := s.query(ctx, "list DIDs", queryDIDs, func(rows *sql.Rows) error {
		d, err := scanDID(rows)
		dids = append(dids, d)
		return err
	}, after, limit)
	return dids, err
}

// DIDsOfKey returns the DIDs that a key does something for.
func (s *Store) DIDsOfKey(ctx context.Context, id ID) ([]string, error) {
	var dids []string
	err := s.query(ctx, "list DIDs", queryKeyDIDs, func(rows *sql.Rows) error {
		var did string
		err := rows.Scan(&did)
		dids = append(dids, did)
		return err
	}, id[:])
	return dids, err
}

// scanDID reads didColumns, and what follows them into more.
func scanDID(rows *sql.Rows, more ...any) (DID, error) {
	var d DID
	var created, updated int64
	var url sql.NullString
	err := rows.Scan(append([]any{&d.DID, &d.Method, &d.Log, &d.Document, &url, &created, &updated, &d.Version},
		more...)...)
	d.URL = url.String
	d.Created, d.Updated = time.Unix(0, created).UTC(), time.Unix(0, updated).UTC()
	return d, err
}
