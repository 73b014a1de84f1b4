//go:build cgo && !nopiv

package token

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"

	"holdfast"
	"holdfast/token/attestation"

	"github.com/go-piv/piv-go/v2/piv"
)

// Attest returns the certificate that the card's attestation key signs for this key, the certificate of that key, and
// this key's own signature over the challenge (X25519 keys cannot give one, so their evidence is not bound to it).
// Package attestation verifies them. It returns ErrUnsupported for an imported key and on a card that does not attest.
func (k *key) Attest(ctx context.Context, challenge []byte) (*holdfast.Evidence, error) {
	if len(challenge) != 32 {
		err := holdfast.Errorf(holdfast.ErrInvalid, "", "a challenge has 32 bytes, not %d", len(challenge))
		return nil, translate("attest", k.ref, err)
	}
	var files map[string][]byte
	err := k.b.do(ctx, "attest", k.ref, func(s *session) (err error) {
		files, err = k.attest(ctx, s, challenge)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &holdfast.Evidence{Kind: attestation.Kind, Files: files}, nil
}

func (k *key) attest(ctx context.Context, s *session, challenge []byte) (map[string][]byte, error) {
	slot, err := s.attestation(k.slot)
	if err != nil {
		return nil, err
	}
	if slot == nil {
		var ca []byte
		if slot, ca, err = k.b.rawAttestation(s, k.slot); err != nil {
			return nil, err
		}
		return k.bind(ctx, k.b.session, challenge, slot, ca)
	}
	ca, err := s.yk.AttestationCertificate()
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the card's attestation key: %w", err)
	}
	return k.bind(ctx, s, challenge, slot, ca.Raw)
}

// bind completes the evidence with the key's signature and checks it, so that evidence about a key that is no longer
// there is not given out.
func (k *key) bind(ctx context.Context, s *session, challenge, slot, ca []byte) (map[string][]byte, error) {
	files := map[string][]byte{attestation.FileSlot: slot, attestation.FileCA: ca}
	if attestation.Binds(k.algorithm) {
		digest := attestation.BindingDigest(k.algorithm, challenge)
		signature, err := k.use(ctx, s, func(private crypto.PrivateKey) ([]byte, error) {
			return private.(crypto.Signer).Sign(rand.Reader, digest, k.bindingOpts())
		})
		if err != nil {
			return nil, fmt.Errorf("sign the challenge: %w", err)
		}
		files[attestation.FileBinding] = signature
	}
	if _, err := attestation.VerifyEvidence(files, challenge, k.algorithm, k.public, nil); err != nil {
		return nil, k.diagnose(s, holdfast.Errorf(holdfast.ErrIntegrity, "", "the card's attestation: %w", err))
	}
	return files, nil
}

// bindingOpts are the options of the key's binding signature; a key for agreement signs as ECDSA does.
func (k *key) bindingOpts() crypto.SignerOpts {
	switch k.algorithm {
	case holdfast.ECDHP256:
		return crypto.SHA256
	case holdfast.ECDHP384:
		return crypto.SHA384
	default:
		return signerOpts(k.algorithm)
	}
}

// attestation returns the slot's attestation certificate, nil when crypto/x509 does not parse it.
func (s *session) attestation(slot piv.Slot) ([]byte, error) {
	cert, err := s.yk.Attest(slot)
	switch {
	case err == nil:
		return cert.Raw, nil
	case gone(err):
		return nil, err
	case errors.Is(err, piv.ErrNotFound):
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"the card does not attest this key: it was imported, not generated (%w)", err)
	case statusOf(err) != 0:
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "this card does not attest keys: %w", err)
	default:
		return nil, nil
	}
}

// rawAttestation reads the certificates that piv-go does not return because crypto/x509 does not parse them. The
// session is closed for that, and another one opened after.
func (b *Backend) rawAttestation(s *session, slot piv.Slot) (cert, ca []byte, err error) {
	b.disconnect()
	raw, err := connectRaw(s.reader)
	if err != nil {
		return nil, nil, err
	}
	cert, err = raw.transmit(attest(byte(slot.Key)))
	if err == nil {
		ca, err = raw.transmit(getObject(attestationObject))
	}
	if closeErr := raw.close(false); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, nil, err
	}
	if inner, ok := objectValue(cert, tagCertificate); ok {
		cert = inner // some cards wrap it as in a certificate object
	}
	object, _ := objectValue(ca, tagObject)
	ca, ok := objectValue(object, tagCertificate)
	if !ok {
		return nil, nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "the card has no certificate for its attestation key")
	}
	if _, err := x509.ParseCertificate(ca); err != nil {
		return nil, nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "the certificate of the card's attestation key: %w", err)
	}
	b.session, err = b.connect()
	return cert, ca, err
}

// The object that holds the certificate of the attestation key, and the tags around a certificate (SP 800-73-4, part 1,
// appendix A).
const (
	attestationObject = 0x5FFF01
	tagObject         = 0x53
	tagCertificate    = 0x70
)
