package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// Attest has the attestation key certify this key: evidence of kind [attestation.Kind], whose files and checks are those of
// package attestation. challenge has 32 bytes. It returns ErrAuth when the endorsement hierarchy's authValue is refused.
func (k *key) Attest(ctx context.Context, challenge []byte) (*holdfast.Evidence, error) {
	const op = "attest"
	if len(challenge) != attestation.ChallengeSize {
		return nil, translate(op, k.ref, holdfast.Errorf(holdfast.ErrInvalid, "", "a challenge has %d bytes, not %d",
			attestation.ChallengeSize, len(challenge)))
	}
	var files map[string][]byte
	err := k.backend.run(ctx, op, k.ref, healing, func(c *conn) error {
		var err error
		files, err = k.attest(ctx, c, challenge)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &holdfast.Evidence{Kind: attestation.Kind, Files: files}, nil
}

func (k *key) attest(ctx context.Context, c *conn, challenge []byte) (map[string][]byte, error) {
	files := map[string][]byte{attestation.FileKey: tpm2.Marshal(*k.area)}
	if err := c.addEK(ctx, files); err != nil {
		return nil, fmt.Errorf("read the endorsement key: %w", err)
	}
	ak, err := c.attestationKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the attestation key: %w", err)
	}
	handle, err := k.use(ctx, c) // which evicts others before the key used last, the attestation key
	if err != nil {
		return nil, err
	}
	files[attestation.FileAK] = tpm2.Marshal(*ak.public)
	if k.blob != nil {
		if err := k.certifyCreation(c, ak, handle, challenge, files); err != nil {
			return nil, fmt.Errorf("certify the creation: %w", err)
		}
	}
	answer, err := tpm2.Certify{
		ObjectHandle:   tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: c.session.auth(nil)},
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: attestation.Binding(challenge, files)},
	}.Execute(c)
	if err != nil {
		return nil, k.noteRefusal(fmt.Errorf("certify: %w", err))
	}
	files[attestation.FileCertify] = answer.CertifyInfo.Bytes()
	files[attestation.FileSignature] = tpm2.Marshal(answer.Signature)
	return files, nil
}

// certifyCreation adds what the TPM says of the moment at which it made a wrapped key.
func (k *key) certifyCreation(
	c *conn, ak storageKey, handle tpm2.NamedHandle, challenge []byte, files map[string][]byte,
) error {
	hash, err := k.area.NameAlg.Hash()
	if err != nil {
		return err
	}
	ticket, err := tpm2.Unmarshal[tpm2.TPMTTKCreation](k.blob.ticket)
	if err != nil {
		return blobError("its ticket: %w", err)
	}
	h := hash.New()
	h.Write(k.blob.creationData)
	answer, err := tpm2.CertifyCreation{
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: c.session.auth(nil)},
		ObjectHandle:   handle,
		QualifyingData: tpm2.TPM2BData{Buffer: challenge},
		CreationHash:   tpm2.TPM2BDigest{Buffer: h.Sum(nil)},
		CreationTicket: *ticket,
	}.Execute(c)
	if err != nil {
		return err
	}
	files[attestation.FileCreation] = answer.CertifyInfo.Bytes()
	files[attestation.FileCreationSignature] = tpm2.Marshal(answer.Signature)
	files[attestation.FileCreationData] = k.blob.creationData
	return nil
}

// addEK adds the endorsement key, its certificate and the chain that the TPM holds. A TPM without a serial shows none.
func (c *conn) addEK(ctx context.Context, files map[string][]byte) error {
	if c.ek.serial == "" {
		return nil
	}
	key, done, err := c.loadEK(ctx)
	if err != nil {
		return err
	}
	files[attestation.FileEK] = tpm2.Marshal(*key.public)
	if err := done(); err != nil {
		return err
	}
	if c.ek.certificate == nil {
		return nil
	}
	files[attestation.FileEKCertificate] = c.ek.certificate
	chain, err := c.chain()
	if err == nil && len(chain) > 0 {
		files[attestation.FileEKChain] = chain
	}
	return err
}

// attestationKey returns the attestation key, which is kept loaded like others. It is the same each time it is made.
func (c *conn) attestationKey(ctx context.Context) (storageKey, error) {
	if c.ak.public != nil {
		if handle, ok := c.slots.find(string(c.ak.Name.Buffer)); ok {
			c.ak.Handle = handle
			return c.ak, nil
		}
	}
	key, err := c.primary(ctx, tpm2.TPMRHEndorsement, attestation.AKTemplate())
	if err != nil {
		return storageKey{}, err
	}
	c.slots.add(string(key.Name.Buffer), key.Handle)
	c.ak = key
	return key, nil
}

// AttestationKey returns the TPMT_PUBLIC of the attestation key, which is in all evidence of this TPM (ak.pub), and of the
// endorsement key (ek.pub), for a verifier that wants to make a credential first. It returns ErrUnsupported for a TPM that
// does not show its endorsement key.
func (b *Backend) AttestationKey(ctx context.Context) (ak, ek []byte, err error) {
	const op = "read attestation key"
	err = b.run(ctx, op, "", healing, func(c *conn) error {
		files := make(map[string][]byte)
		if err := c.addEK(ctx, files); err != nil {
			return err
		}
		if ek = files[attestation.FileEK]; ek == nil {
			return holdfast.Errorf(holdfast.ErrUnsupported, "", "the TPM's endorsement hierarchy is closed")
		}
		key, err := c.attestationKey(ctx)
		if err == nil {
			ak = tpm2.Marshal(*key.public)
		}
		return err
	})
	return ak, ek, err
}

// ActivateCredential returns the secret in a credential that a verifier made with [attestation.MakeCredential] for this
// TPM's endorsement and attestation keys, and so proves that both are in it. It returns ErrIntegrity for a credential for
// other keys, or an edited one.
func (b *Backend) ActivateCredential(ctx context.Context, credential attestation.Credential) (holdfast.Secret, error) {
	const op = "activate credential"
	var secret []byte
	err := b.run(ctx, op, "", healing, func(c *conn) error {
		var err error
		secret, err = c.activate(ctx, credential)
		return err
	})
	if err != nil {
		return holdfast.Secret{}, err
	}
	return holdfast.NewSecret(secret), nil
}

func (c *conn) activate(ctx context.Context, credential attestation.Credential) (secret []byte, err error) {
	ek, done, err := c.loadEK(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	ak, err := c.attestationKey(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.room(ek.slot()); err != nil {
		return nil, err
	}
	auth := tpm2.PasswordAuth(nil)
	if !c.ek.template.UserWithAuth {
		policy, end, err := c.endorsementPolicy(ctx)
		if err != nil {
			return nil, err
		}
		defer end()
		auth = policy
	}
	answer, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: c.session.secret(nil, false, true)},
		KeyHandle:      tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: auth},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential.IDObject},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: credential.EncryptedSeed},
	}.Execute(c)
	switch {
	case err == nil:
		return answer.CertInfo.Buffer, nil
	case errors.Is(err, tpm2.TPMRCIntegrity), errors.Is(err, tpm2.TPMRCSize), errors.Is(err, tpm2.TPMRCValue),
		errors.Is(err, tpm2.TPMRCInsufficient), errors.Is(err, tpm2.TPMRCECCPoint):
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "",
			"the credential was made for other keys, or was edited: %w", err)
	default:
		return nil, err
	}
}

// endorsementPolicy begins a session in which the policy of an EK of the low range holds.
func (c *conn) endorsementPolicy(ctx context.Context) (tpm2.Session, func(), error) {
	auth, err := c.hierarchyAuth(ctx, tpm2.TPMRHEndorsement)
	if err != nil {
		return nil, nil, err
	}
	session, closeSession, err := tpm2.PolicySession(c, tpm2.TPMAlgSHA256, nonceSize)
	if err != nil {
		return nil, nil, fmt.Errorf("begin a policy session: %w", err)
	}
	end := func() { _ = closeSession() } // an error shows at the next command
	if _, err := (tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: auth},
		PolicySession: session.Handle(),
		NonceTPM:      session.NonceTPM(),
	}).Execute(c); err != nil {
		end()
		return nil, nil, hierarchyError(tpm2.TPMRHEndorsement, err)
	}
	return session, end, nil
}
