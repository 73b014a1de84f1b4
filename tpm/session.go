package tpm

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// errForged is the error for an answer whose HMAC does not verify: it was not made by the TPM that the session is with.
var errForged = errors.New("the TPM's answer is not authentic")

const (
	nonceSize  = 16  // of nonceCaller and nonceTPM; Part 1, section 17.6.3 asks for half the digest at least
	aesKeyBits = 128 // every TPM has AES-128-CFB (PC Client Platform TPM Profile, section 4)
)

// session is an HMAC session with SHA-256 and AES-128-CFB whose key comes from a salt that only the TPM can decrypt. go-tpm
// has one too, whose use of parameter encryption is fixed when it begins; here each command says what it needs, so that
// one session serves all commands and those without secrets do not pay for encryption.
//
// The zero attributes authorize; see secret.
type session struct {
	handle      tpm2.TPMHandle
	key         []byte
	nonceCaller []byte
	nonceTPM    []byte
}

// startSession begins a session salted to a loaded decryption key.
func startSession(t transport.TPM, handle tpm2.TPMHandle, public *tpm2.TPMTPublic) (*session, error) {
	saltKey, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, err
	}
	salt, encryptedSalt, err := tpm2.CreateEncryptedSalt(rand.Reader, saltKey)
	if err != nil {
		return nil, err
	}
	s := &session{nonceCaller: make([]byte, nonceSize)}
	if err := s.NewNonceCaller(); err != nil {
		return nil, err
	}
	answer, err := tpm2.StartAuthSession{
		TPMKey:        handle,
		Bind:          tpm2.TPMRHNull,
		NonceCaller:   tpm2.TPM2BNonce{Buffer: s.nonceCaller},
		EncryptedSalt: tpm2.TPM2BEncryptedSecret{Buffer: encryptedSalt},
		SessionType:   tpm2.TPMSEHMAC,
		Symmetric: tpm2.TPMTSymDef{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(aesKeyBits)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		AuthHash: tpm2.TPMAlgSHA256,
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	s.handle = answer.SessionHandle
	s.nonceTPM = answer.NonceTPM.Buffer
	// Part 1, section 17.6.8
	s.key = tpm2.KDFa(crypto.SHA256, salt, "ATH", s.nonceTPM, s.nonceCaller, sha256.Size*8)
	return s, nil
}

// auth returns the session as the authorization of an object or hierarchy with an authValue, which has no zero byte.
func (s *session) auth(authValue []byte) tpm2.Session {
	return &sessionUse{session: s, authValue: authValue}
}

// secret returns the session as auth does, with the first parameter of the command (in) and of the answer (out) encrypted.
func (s *session) secret(authValue []byte, in, out bool) tpm2.Session {
	return &sessionUse{session: s, authValue: authValue, in: in, out: out}
}

// vouch returns the session for a command that needs no authorization and whose answer cannot be encrypted: as an audit
// session, it authenticates both all the same.
func (s *session) vouch() tpm2.Session { return &sessionUse{session: s, audit: true} }

// Init does nothing: the session has begun. With the methods below, it is part of tpm2.Session.
func (s *session) Init(transport.TPM) error { return nil }

// CleanupFailure does nothing: the session goes on after a command that failed.
func (s *session) CleanupFailure(transport.TPM) error { return nil }

// NonceTPM returns the TPM's last nonce.
func (s *session) NonceTPM() tpm2.TPM2BNonce { return tpm2.TPM2BNonce{Buffer: s.nonceTPM} }

// NewNonceCaller chooses the nonce of the next command.
func (s *session) NewNonceCaller() error {
	_, err := rand.Read(s.nonceCaller)
	return err
}

// Handle returns the session's handle.
func (s *session) Handle() tpm2.TPMHandle { return s.handle }

// sessionUse is the session in one command. It implements tpm2.Session.
type sessionUse struct {
	*session
	authValue []byte
	in, out   bool
	audit     bool
}

var _ tpm2.Session = (*sessionUse)(nil)

func (u *sessionUse) attributes() tpm2.TPMASession {
	return tpm2.TPMASession{ContinueSession: true, Decrypt: u.in, Encrypt: u.out, Audit: u.audit}
}

// continueSession is the bit that keeps a session alive.
const continueSession = 1 << 0

// attributeBits encodes a TPMA_SESSION (Part 2, section 8.4).
func attributeBits(a tpm2.TPMASession) byte {
	var bits byte
	for _, b := range [...]struct {
		bit byte
		set bool
	}{
		{continueSession, a.ContinueSession}, {1 << 1, a.AuditExclusive}, {1 << 2, a.AuditReset},
		{1 << 5, a.Decrypt}, {1 << 6, a.Encrypt}, {1 << 7, a.Audit},
	} {
		if b.set {
			bits |= b.bit
		}
	}
	return bits
}

// hmac computes the authorization of a command or answer (Part 1, section 17.6.5).
func (u *sessionUse) hmac(parametersHash, newer, older, extra []byte, attributes byte) []byte {
	h := hmac.New(sha256.New, append(append(make([]byte, 0, 64), u.key...), u.authValue...))
	h.Write(parametersHash)
	h.Write(newer)
	h.Write(older)
	h.Write(extra)
	h.Write([]byte{attributes})
	return h.Sum(nil)
}

// Authorize computes the session's part of a command.
func (u *sessionUse) Authorize(
	cc tpm2.TPMCC, parameters, addNonces []byte, names []tpm2.TPM2BName, _ int,
) (*tpm2.TPMSAuthCommand, error) {
	h := sha256.New() // cpHash
	var code [4]byte
	binary.BigEndian.PutUint32(code[:], uint32(cc))
	h.Write(code[:])
	for _, name := range names {
		h.Write(name.Buffer)
	}
	h.Write(parameters)
	attributes := u.attributes()
	mac := u.hmac(h.Sum(nil), u.nonceCaller, u.nonceTPM, addNonces, attributeBits(attributes))
	return &tpm2.TPMSAuthCommand{
		Handle:        u.handle,
		Nonce:         tpm2.TPM2BNonce{Buffer: u.nonceCaller},
		Attributes:    attributes,
		Authorization: tpm2.TPM2BData{Buffer: mac},
	}, nil
}

// Validate checks the session's part of an answer.
func (u *sessionUse) Validate(
	_ tpm2.TPMRC, cc tpm2.TPMCC, parameters []byte, _ []tpm2.TPM2BName, _ int, answer *tpm2.TPMSAuthResponse,
) error {
	return u.check(cc, parameters, answer.Nonce.Buffer, attributeBits(answer.Attributes), answer.Authorization.Buffer)
}

// check checks the session's part of the answer to a command that succeeded; others have none.
func (u *sessionUse) check(cc tpm2.TPMCC, parameters, nonceTPM []byte, attributes byte, mac []byte) error {
	u.nonceTPM = nonceTPM
	h := sha256.New() // rpHash
	var codes [8]byte
	binary.BigEndian.PutUint32(codes[:], uint32(tpm2.TPMRCSuccess))
	binary.BigEndian.PutUint32(codes[4:], uint32(cc))
	h.Write(codes[:])
	h.Write(parameters)
	want := u.hmac(h.Sum(nil), u.nonceTPM, u.nonceCaller, nil, attributes)
	if !hmac.Equal(want, mac) || attributes&continueSession == 0 {
		return errForged
	}
	return nil
}

// IsDecryption reports whether the TPM has to decrypt the command's first parameter.
func (u *sessionUse) IsDecryption() bool { return u.in }

// IsEncryption reports whether the TPM has to encrypt the answer's first parameter.
func (u *sessionUse) IsEncryption() bool { return u.out }

// stream returns the key stream of parameter encryption (Part 1, section 19.3): AES-CFB under KDFa.
func (u *sessionUse) stream(newer, older []byte) (cipher.Block, []byte, error) {
	value := append(append(make([]byte, 0, 64), u.key...), u.authValue...)
	keyIV := tpm2.KDFa(crypto.SHA256, value, "CFB", newer, older, aesKeyBits+8*aes.BlockSize)
	block, err := aes.NewCipher(keyIV[:aesKeyBits/8])
	return block, keyIV[aesKeyBits/8:], err
}

// Encrypt encrypts the command's first parameter in place.
func (u *sessionUse) Encrypt(parameter []byte) error {
	if !u.in {
		return nil
	}
	block, iv, err := u.stream(u.nonceCaller, u.nonceTPM)
	if err == nil {
		cfb(block, iv, parameter, parameter)
	}
	return err
}

// Decrypt decrypts the answer's first parameter in place.
func (u *sessionUse) Decrypt(parameter []byte) error {
	if !u.out {
		return nil
	}
	block, iv, err := u.stream(u.nonceTPM, u.nonceCaller)
	if err == nil {
		ciphertext := append([]byte(nil), parameter...)
		cfb(block, iv, parameter, ciphertext)
	}
	return err
}

// cfb XORs data with the key stream of cipher feedback, SP 800-38A, section 6.3, in which each block of ciphertext is the
// input of the next. ciphertext is data itself for encryption, and a copy of it for decryption. crypto/cipher's own is
// deprecated, for want of authentication, which here is the HMAC's part.
func cfb(block cipher.Block, iv, data, ciphertext []byte) {
	var keyStream [aes.BlockSize]byte
	for i := 0; i < len(data); i += aes.BlockSize {
		block.Encrypt(keyStream[:], iv)
		n := min(aes.BlockSize, len(data)-i)
		for j := range n {
			data[i+j] ^= keyStream[j]
		}
		if n == aes.BlockSize {
			iv = ciphertext[i : i+n]
		}
	}
}
