-- Key records. A record exists if and only if the key was acknowledged to the caller that asked for it.
CREATE TABLE keys (
    seq        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    name       TEXT    NOT NULL UNIQUE,
    backend    TEXT    NOT NULL,
    ref        TEXT    NOT NULL,
    algorithm  TEXT    NOT NULL,
    purpose    TEXT    NOT NULL,
    residence  INTEGER NOT NULL CHECK (residence IN (1, 2)),
    public     BLOB    NOT NULL, -- SubjectPublicKeyInfo; empty for a secret key
    blob       BLOB,             -- the wrapped private half
    place      TEXT    NOT NULL,
    pin        INTEGER NOT NULL,
    touch      INTEGER NOT NULL,
    adopted    INTEGER NOT NULL CHECK (adopted IN (0, 1)),
    state      TEXT    NOT NULL,
    destroying INTEGER NOT NULL DEFAULT 0 CHECK (destroying IN (0, 1)),
    created    INTEGER NOT NULL, -- nanoseconds since 1970-01-01 UTC, as all times here
    version    INTEGER NOT NULL,
    UNIQUE (backend, ref),
    CHECK ((residence = 2) = (blob IS NOT NULL))
) STRICT;

CREATE INDEX keys_by_backend ON keys (backend, name);

-- What is about to be done to a device, written before it is done. id is the key's.
CREATE TABLE intents (
    id      BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    act     TEXT    NOT NULL CHECK (act IN ('create', 'destroy')),
    name    TEXT    NOT NULL UNIQUE,
    backend TEXT    NOT NULL,
    ref     TEXT    NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (backend, ref)
) STRICT;

-- Keys that were destroyed. Their names are free again; their identifiers never are.
CREATE TABLE tombstones (
    id        BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name      TEXT    NOT NULL,
    backend   TEXT    NOT NULL,
    ref       TEXT    NOT NULL,
    algorithm TEXT    NOT NULL,
    purpose   TEXT    NOT NULL,
    residence INTEGER NOT NULL,
    public    BLOB    NOT NULL,
    created   INTEGER NOT NULL,
    destroyed INTEGER NOT NULL
) STRICT;

CREATE INDEX tombstones_by_ref ON tombstones (backend, ref);
CREATE INDEX tombstones_by_name ON tombstones (name);

-- What became of the last PIN given to a device: 0 accepted, 1 outcome unknown, 2 refused.
CREATE TABLE pin_memory (
    device TEXT    NOT NULL PRIMARY KEY,
    state  INTEGER NOT NULL CHECK (state IN (0, 1, 2))
) STRICT;

CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE dids (
    did      TEXT    NOT NULL PRIMARY KEY,
    method   TEXT    NOT NULL,
    log      TEXT    NOT NULL, -- the method's log of changes; empty where it has none
    document TEXT    NOT NULL,
    url      TEXT    UNIQUE,   -- where the log is published, at most one DID an address; null where it is not
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    version  INTEGER NOT NULL
) STRICT;

-- Which key does what for a DID. No foreign key to keys: a destroyed key stays part of the DID's history.
CREATE TABLE did_keys (
    did      TEXT NOT NULL REFERENCES dids (did) ON DELETE CASCADE,
    key_id   BLOB NOT NULL CHECK (length(key_id) = 16),
    role     TEXT NOT NULL,
    fragment TEXT NOT NULL,
    PRIMARY KEY (did, key_id, role)
) STRICT;

CREATE INDEX did_keys_by_key ON did_keys (key_id);
