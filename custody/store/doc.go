// Package store keeps what custody must not forget: key records and the blobs of wrapped keys, what was about to be done
// when the process died, tombstones of destroyed keys, what became of the last PIN, secrets of backends, and DIDs.
//
// It is one SQLite file in WAL mode with synchronous=FULL: what a writing method acknowledged is on the disk. There is
// one writer; callers that write at the same time share one transaction and one fsync (group commit, without a timer).
// Readers do not wait for it. One process opens a store at a time.
//
// The store trusts the file system and the user it runs as: it refuses files and folders that others can open, but does
// not encrypt. Private keys are never in it in the clear; the blobs of wrapped keys are encrypted by their device.
// Secrets of backends ([Store.StoreSecret]) are protected by the file's mode alone.
//
// All errors are *holdfast.Error: ErrNotFound, ErrExists, ErrState for a lost race, ErrInvalid for a file that is not a
// store or is open to others, ErrBusy for a store that is in use, ErrUnavailable for a full disk, ErrIntegrity for a
// damaged file. Context errors pass through.
package store
