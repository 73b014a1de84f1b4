package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"holdfast"
)

// prepareFiles makes the folder and the file when they are missing and checks that nobody else can open them.
func prepareFiles(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); errors.Is(err, syscall.ENOTDIR) {
		return holdfast.Errorf(holdfast.ErrInvalid, "open store", "%w", err)
	} else if err != nil {
		return fileError("make the store's folder", err)
	}
	if err := checkMode(dir, true); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fileError("make the store's file", err)
	}
	if err := f.Close(); err != nil {
		return fileError("make the store's file", err)
	}
	// SQLite gives the files beside the database the database's mode; those of an earlier run may have been changed.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := checkMode(path+suffix, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(dir)
}

// checkMode returns ErrInvalid when path belongs to someone else or others may open it.
func checkMode(path string, dir bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fileError("check the store's files", err)
	}
	want := "0600"
	if dir {
		want = "0700"
	}
	switch stat, ok := info.Sys().(*syscall.Stat_t); {
	case info.IsDir() != dir || !dir && !info.Mode().IsRegular():
		return holdfast.Errorf(holdfast.ErrInvalid, "open store", "%s is not what it should be: it has mode %s", path,
			info.Mode())
	case ok && int(stat.Uid) != os.Geteuid():
		return holdfast.Errorf(holdfast.ErrInvalid, "open store",
			"%s belongs to user %d, not to the one this process runs as (%d): change its owner", path, stat.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return holdfast.Errorf(holdfast.ErrInvalid, "open store", "%s can be opened by others: run chmod %s %s", path,
			want, path)
	}
	return nil
}

// lockFile takes the lock that keeps a second process out; the system releases it when the process ends, however it does.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fileError("lock the store", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = holdfast.Errorf(holdfast.ErrBusy, "open store", "another process uses it (%s): is holdfastd running?",
			path)
	} else if err != nil {
		err = fileError("lock the store", err)
	}
	if err != nil {
		return nil, and(err, f.Close())
	}
	return f, nil
}

// syncDir makes the entries of a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fileError("sync the store's folder", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fileError("sync the store's folder", err)
	}
	return nil
}

func fileError(step string, err error) error {
	code := holdfast.ErrUnavailable
	if errors.Is(err, fs.ErrPermission) {
		code = holdfast.ErrInvalid
	}
	return holdfast.Errorf(code, "open store", "%w", fmt.Errorf("%s: %w", step, err))
}
