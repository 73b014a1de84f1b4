package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// srkHandle is where the storage root key is, on machines that made it persistent (TCG TPM v2.0 Provisioning Guidance,
// section 7.8).
const srkHandle tpm2.TPMHandle = 0x81000001

// srkTemplate returns the template of the storage root key that the backend makes where none is persistent: P-256 after
// the TCG's template H-2 (an empty unique field) with userWithAuth and noDA. The TPM makes the same key each time, until
// it is cleared.
func srkTemplate() tpm2.TPMTPublic {
	public := tpm2.ECCSRKTemplate
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, new(tpm2.TPMSECCPoint))
	return public
}

// findSRK finds the persistent storage root key, or makes it again.
func (c *conn) findSRK(ctx context.Context) error {
	public, name, err := c.readPublic(srkHandle)
	switch {
	case err == nil && suitableSRK(public):
		c.srk = storageKey{tpm2.NamedHandle{Handle: srkHandle, Name: name}, public, true}
		return c.confirmSRK()
	case err != nil && !errors.Is(err, tpm2.TPMRCHandle):
		return err
	}
	c.srk, err = c.primary(ctx, tpm2.TPMRHOwner, srkTemplate())
	if err == nil {
		c.slots.capacity-- // it stays
	}
	return err
}

// confirmSRK reads the persistent storage root key again in a session with the endorsement key, where there is one, and so
// makes sure that the key which secrets are encrypted to is the TPM's.
func (c *conn) confirmSRK() error {
	if c.session == nil {
		return nil
	}
	answer, err := tpm2.ReadPublic{ObjectHandle: c.srk.NamedHandle}.Execute(c, c.session.secret(nil, false, true))
	if err == nil && !bytes.Equal(answer.Name.Buffer, c.srk.Name.Buffer) {
		err = errForged
	}
	return err
}

// suitableSRK reports whether a persistent object can be the parent of keys: a storage key that stays in this TPM and
// whose use counts no failures.
func suitableSRK(public *tpm2.TPMTPublic) bool {
	a := public.ObjectAttributes
	return a.FixedTPM && a.FixedParent && a.SensitiveDataOrigin && a.UserWithAuth && a.NoDA && a.Restricted && a.Decrypt &&
		!a.SignEncrypt && public.NameAlg == tpm2.TPMAlgSHA256 &&
		(public.Type == tpm2.TPMAlgECC || public.Type == tpm2.TPMAlgRSA)
}

// parent returns the storage key of the given Name, and a function that is to be called when it was used. It is the
// current SRK, unless the SRK became persistent, or ceased to be, after the object was made: then the other keys
// that programs commonly use as SRK are tried, so that nothing wrapped is lost by it.
func (c *conn) parent(ctx context.Context, name []byte) (storageKey, func(), error) {
	if bytes.Equal(name, c.srk.Name.Buffer) {
		return c.srk, func() {}, nil
	}
	for _, template := range []tpm2.TPMTPublic{srkTemplate(), tpm2.ECCSRKTemplate, tpm2.RSASRKTemplate} {
		key, err := c.primary(ctx, tpm2.TPMRHOwner, template)
		if err != nil {
			return storageKey{}, nil, err
		}
		c.slots.capacity--
		done := func() {
			c.slots.capacity++
			_ = c.flush(key.Handle) // an error shows at the next command
		}
		if bytes.Equal(name, key.Name.Buffer) {
			return key, done, nil
		}
		done()
	}
	return storageKey{}, nil, holdfast.Errorf(holdfast.ErrInvalid, "",
		"the blob was wrapped under the storage root key of "+
			"another TPM, or before this one was cleared (%x)", name)
}

// primary makes a primary key and leaves it loaded.
func (c *conn) primary(ctx context.Context, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (storageKey, error) {
	if err := c.room(1); err != nil {
		return storageKey{}, err
	}
	auth, err := c.hierarchyAuth(ctx, hierarchy)
	if err != nil {
		return storageKey{}, err
	}
	answer, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: auth},
		InPublic:      tpm2.New2B(template),
	}.Execute(c)
	if err != nil {
		return storageKey{}, hierarchyError(hierarchy, err)
	}
	public, err := answer.OutPublic.Contents()
	if err == nil && !attestation.OfTemplate(public, &template) {
		err = errForged
	}
	if err != nil {
		return storageKey{}, errors.Join(err, c.flush(answer.ObjectHandle))
	}
	return storageKey{NamedHandle: tpm2.NamedHandle{Handle: answer.ObjectHandle, Name: answer.Name}, public: public}, nil
}

// hierarchyAuth returns the authorization of a hierarchy. Before there is a session, an authValue is shown by an HMAC of
// its own, which a listener could guess at, but not read.
func (c *conn) hierarchyAuth(ctx context.Context, hierarchy tpm2.TPMHandle) (tpm2.Session, error) {
	source := c.cfg.OwnerAuth
	if hierarchy == tpm2.TPMRHEndorsement {
		source = c.cfg.EndorsementAuth
	}
	var authValue []byte
	if source != nil {
		secret, err := source(ctx)
		if err != nil {
			return nil, fmt.Errorf("get the authValue of the %s hierarchy: %w", hierarchyName(hierarchy), err)
		}
		authValue = bytes.TrimRight(secret.Bytes(), "\x00") // as the TPM does, Part 1, section 17.6.4.3
	}
	switch {
	case c.session != nil:
		return c.session.auth(authValue), nil
	case len(authValue) == 0:
		return tpm2.PasswordAuth(nil), nil
	default:
		return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth(authValue)), nil
	}
}

func hierarchyName(hierarchy tpm2.TPMHandle) string {
	if hierarchy == tpm2.TPMRHEndorsement {
		return "endorsement"
	}
	return "owner"
}

// hierarchyError says which authValue was refused. It is never tried again: unlike for a key without one, it can be wrong.
func hierarchyError(hierarchy tpm2.TPMHandle, err error) error {
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return holdfast.Errorf(holdfast.ErrAuth, "", "the TPM refused the authValue of the %s hierarchy: correct it in the "+
			"configuration: %w", hierarchyName(hierarchy), err)
	}
	return err
}

// readPublic returns an object's public area and Name. A listener that also changes messages could put in another; it
// would show when the object is used, because the session covers its Name.
func (c *conn) readPublic(handle tpm2.TPMHandle) (*tpm2.TPMTPublic, tpm2.TPM2BName, error) {
	if handle>>24 == persistentType {
		if err := c.room(1); err != nil {
			return nil, tpm2.TPM2BName{}, err
		}
	}
	answer, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(c)
	if err != nil {
		return nil, tpm2.TPM2BName{}, err
	}
	public, err := answer.OutPublic.Contents()
	if err != nil {
		return nil, tpm2.TPM2BName{}, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, tpm2.TPM2BName{}, err
	}
	if !bytes.Equal(name.Buffer, answer.Name.Buffer) {
		return nil, tpm2.TPM2BName{}, errForged
	}
	return public, answer.Name, nil
}

// persistentType is the first byte of persistent handles.
const persistentType = 0x81
