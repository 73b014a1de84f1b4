package tpm

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

const (
	// MaxSecret is the longest secret that Seal takes, in bytes.
	MaxSecret = 1 << 20

	sealKeySize = 32
	pcrCount    = 24 // of a PC Client TPM
)

// Seal makes an AES-256 key that only this TPM gives back, and only while the PCRs of the SHA-256 bank are what they are
// now and to who knows the AuthValue, and encrypts secret (1 byte to 1 MiB) with it by AES-256-GCM. It returns
// ErrUnsupported when the TPM has no SHA-256 bank.
//
// With an AuthValue the TPM counts wrong ones, and refuses all for a while after too many (dictionary attack protection).
func (b *Backend) Seal(ctx context.Context, secret holdfast.Secret, options *holdfast.SealOptions) ([]byte, error) {
	const op = "seal"
	if options == nil {
		options = new(holdfast.SealOptions)
	}
	pcrs, err := checkSeal(secret, options)
	if err != nil {
		return nil, translate(op, "", err)
	}
	sealKey := make([]byte, sealKeySize)
	defer clear(sealKey)
	if _, err := rand.Read(sealKey); err != nil {
		return nil, translate(op, "", err)
	}
	s := &sealed{authValue: options.AuthValue.Len() > 0}
	err = b.run(ctx, op, "", healing, func(c *conn) error {
		var err error
		if s.pcrs, err = c.readPCRs(pcrs); err != nil {
			return err
		}
		return c.seal(s, sealKey, deriveAuth(options.AuthValue))
	})
	if err != nil {
		return nil, err
	}
	blob, err := s.encode(sealKey, secret.Bytes())
	return blob, translate(op, "", err)
}

// checkSeal checks the request and returns the PCRs in order.
func checkSeal(secret holdfast.Secret, options *holdfast.SealOptions) ([]int, error) {
	if secret.Len() == 0 || secret.Len() > MaxSecret {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "",
			"a secret to seal has 1 to %d bytes, not %d", MaxSecret, secret.Len())
	}
	pcrs := slices.Sorted(slices.Values(options.PCRs))
	for i, pcr := range pcrs {
		if pcr < 0 || pcr >= pcrCount || i > 0 && pcrs[i-1] == pcr {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "PCRs are numbered 0 to %d, each named once: %v", pcrCount-1,
				options.PCRs)
		}
	}
	return pcrs, nil
}

// deriveAuth makes an authValue of what a person chose: of the length every TPM takes, without zero bytes, which TPMs
// strip. Empty stays empty.
func deriveAuth(auth holdfast.Secret) []byte {
	if auth.Len() == 0 {
		return nil
	}
	h := sha256.New()
	h.Write([]byte("holdfast tpm seal authValue\x00"))
	h.Write(auth.Bytes())
	return []byte(base64.RawURLEncoding.EncodeToString(h.Sum(nil))[:sha256.Size]) // 192 bits
}

// seal has the TPM wrap sealKey.
func (c *conn) seal(s *sealed, sealKey, authValue []byte) error {
	policy, err := s.policy()
	if err != nil {
		return err
	}
	if err := c.room(1 + c.srk.slot()); err != nil {
		return err
	}
	answer, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: c.srk.Handle, Name: c.srk.Name, Auth: c.session.secret(nil, true, false)},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: authValue},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: sealKey}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgKeyedHash,
			NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true,
				UserWithAuth: !s.conditional(),
				NoDA:         !s.authValue, // the TPM limits guesses at an authValue
			},
			AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, new(tpm2.TPMSKeyedHashParms)),
			Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, new(tpm2.TPM2BDigest)),
		}),
	}.Execute(c)
	if err != nil {
		return err
	}
	public, err := answer.OutPublic.Contents()
	if err != nil {
		return err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return err
	}
	s.object = object{c.srk.Name.Buffer, answer.OutPublic, answer.OutPrivate, *name}
	return nil
}

// Unseal returns the secret in a blob of Seal. It returns ErrDenied, naming the PCRs, when they changed since; ErrAuth,
// with the tries left, for a wrong AuthValue, and ErrInvalid for one that the blob does not want or that is missing;
// ErrLocked while the TPM takes none; ErrIntegrity for an edited blob; ErrInvalid for one of another TPM.
func (b *Backend) Unseal(ctx context.Context, blob []byte, options *holdfast.UnsealOptions) (holdfast.Secret, error) {
	const op = "unseal"
	var auth holdfast.Secret
	if options != nil {
		auth = options.AuthValue
	}
	s, err := parseSealed(blob)
	if err == nil && s.authValue != (auth.Len() > 0) {
		err = holdfast.Errorf(holdfast.ErrInvalid, "", "the secret was sealed with an AuthValue: %t; one was given: %t",
			s.authValue, auth.Len() > 0)
	}
	if err != nil {
		return holdfast.Secret{}, translate(op, "", err)
	}
	times := healing
	if s.authValue {
		times = once                         // should it be wrong, it would be counted twice
		if err := b.Probe(ctx); err != nil { // which heals
			return holdfast.Secret{}, err
		}
	}
	var sealKey []byte
	defer func() { clear(sealKey) }()
	err = b.run(ctx, op, "", times, func(c *conn) error {
		var err error
		sealKey, err = c.unseal(ctx, s, deriveAuth(auth))
		return err
	})
	if err != nil {
		return holdfast.Secret{}, err
	}
	secret, err := s.open(sealKey)
	if err != nil {
		return holdfast.Secret{}, translate(op, "", err)
	}
	return holdfast.NewSecret(secret), nil
}

// unseal has the TPM unwrap the key, and takes the object out again.
func (c *conn) unseal(ctx context.Context, s *sealed, authValue []byte) ([]byte, error) {
	handle, err := c.load(ctx, &s.object)
	if err != nil {
		return nil, err
	}
	sealKey, err := c.unsealLoaded(s, handle, authValue)
	if _, lost := errors.AsType[*lostError](err); lost {
		return nil, err
	}
	if e := c.forget(s.name.Buffer); err == nil {
		err = e
	}
	if s.authValue && c.direct {
		// A power failure after the use of a DA-protected object counts as a failed try, unless the TPM was told.
		if e := c.settle(); err == nil {
			err = e
		}
	}
	return sealKey, err
}

func (c *conn) unsealLoaded(s *sealed, handle tpm2.NamedHandle, authValue []byte) ([]byte, error) {
	auth := c.session.secret(nil, false, true)
	if s.conditional() {
		policy, end, err := c.satisfy(s, authValue)
		if err != nil {
			return nil, err
		}
		defer end()
		auth = policy
	}
	answer, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: auth},
	}.Execute(c)
	switch {
	case err == nil:
		return answer.OutData.Buffer, nil
	case errors.Is(err, tpm2.TPMRCPolicyFail), errors.Is(err, tpm2.TPMRCPCRChanged):
		return nil, c.changedPCRs(s, err)
	case s.authValue && (errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCLockout)):
		return nil, c.authError(err)
	default:
		return nil, err
	}
}

// satisfy begins a policy session, salted and encrypting like the other one, in which the conditions hold.
func (c *conn) satisfy(s *sealed, authValue []byte) (tpm2.Session, func(), error) {
	if err := c.room(c.srk.slot()); err != nil {
		return nil, nil, err
	}
	options := []tpm2.AuthOption{
		tpm2.Salted(c.srk.Handle, *c.srk.public), tpm2.AESEncryption(aesKeyBits, tpm2.EncryptOut),
	}
	if s.authValue {
		options = append(options, tpm2.Auth(authValue))
	}
	session, closeSession, err := tpm2.PolicySession(c, tpm2.TPMAlgSHA256, nonceSize, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("begin a policy session: %w", err)
	}
	end := func() { _ = closeSession() } // an error shows at the next command
	for _, command := range s.policyCommands(session.Handle()) {
		if err := command.execute(c); err != nil {
			end()
			if errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, tpm2.TPMRCPCRChanged) { // PolicyPCR with another digest
				err = c.changedPCRs(s, err)
			}
			return nil, nil, err
		}
	}
	return session, end, nil
}

// changedPCRs returns the error that names the PCRs that are not what they were.
func (c *conn) changedPCRs(s *sealed, cause error) error {
	numbers := make([]int, len(s.pcrs))
	for i, pcr := range s.pcrs {
		numbers[i] = pcr.Index
	}
	now, err := c.readPCRs(numbers)
	if err != nil {
		return err
	}
	var changed []int
	for i, pcr := range s.pcrs {
		if !bytes.Equal(pcr.Value, now[i].Value) {
			changed = append(changed, pcr.Index)
		}
	}
	return holdfast.Errorf(holdfast.ErrDenied, "",
		"the platform is not in the state in which the secret was sealed: PCRs %v "+
			"changed; boot as before, or seal anew from a backup: %w", changed, cause)
}

// authError returns the error for a refused AuthValue, with what the TPM says of its dictionary attack protection.
func (c *conn) authError(cause error) error {
	values, err := c.properties(tpm2.TPMPTLockoutCounter, 4)
	if err != nil {
		return err
	}
	left := max(0, int(values[tpm2.TPMPTMaxAuthFail])-int(values[tpm2.TPMPTLockoutCounter]))
	if errors.Is(cause, tpm2.TPMRCLockout) {
		e := holdfast.Errorf(holdfast.ErrLocked, "", "after too many wrong ones the TPM takes no AuthValue, the right one "+
			"included, for up to %d seconds: wait, or reset its lockout with the lockout authority (tpm2_dictionarylockout -c): %w",
			values[tpm2.TPMPTLockoutInterval], cause)
		e.Retries = left
		return e
	}
	e := holdfast.Errorf(holdfast.ErrAuth, "", "the AuthValue is wrong: %w", cause)
	e.Retries = left
	return e
}

// readPCRs returns the values of PCRs in the SHA-256 bank.
func (c *conn) readPCRs(numbers []int) ([]pcrValue, error) {
	values := make([]pcrValue, 0, len(numbers))
	for _, number := range numbers { // one by one: a TPM answers with as many as it likes
		answer, err := tpm2.PCRRead{PCRSelectionIn: selectPCRs(number)}.Execute(c, c.session.vouch())
		if err != nil {
			return nil, err
		}
		if len(answer.PCRValues.Digests) != 1 || len(answer.PCRValues.Digests[0].Buffer) != sha256.Size {
			return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "the TPM does not keep PCR %d in a SHA-256 bank: allocate "+
				"that bank (tpm2_pcrallocate sha256:all) and reboot", number)
		}
		values = append(values, pcrValue{number, answer.PCRValues.Digests[0].Buffer})
	}
	return values, nil
}

func selectPCRs(numbers ...int) tpm2.TPMLPCRSelection {
	list := make([]uint, len(numbers))
	for i, n := range numbers {
		list[i] = uint(n)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...)},
	}}
}

// gcm returns AES-256-GCM under the sealed key.
func gcm(sealKey []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
