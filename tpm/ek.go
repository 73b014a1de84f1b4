package tpm

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	"holdfast/tpm/attestation"
)

// endorsement is what is known of the endorsement key (EK), by which a TPM is told from others.
type endorsement struct {
	template    attestation.EKTemplate
	certificate []byte         // DER, nil where the TPM holds none
	handle      tpm2.TPMHandle // where the key is persistent; 0 where it is made of the template when it is needed
	serial      string         // hexadecimal digest of the public key; empty where the TPM does not show it
}

// Where TPM makers put endorsement certificates and keys (TCG EK Credential Profile, section 2.2; TCG Registry of Reserved
// TPM 2.0 Handles, section 2.3.1).
const (
	firstCertificate tpm2.TPMHandle = 0x01c00000
	lastCertificate  tpm2.TPMHandle = 0x01c000ff
	firstChain       tpm2.TPMHandle = 0x01c00100
	lastChain        tpm2.TPMHandle = 0x01c001ff
	firstEK          tpm2.TPMHandle = 0x81010000
	lastEK           tpm2.TPMHandle = 0x8101ffff
)

// identify finds the endorsement key: one that the TPM's maker certified, or else the TCG's default. A TPM whose
// endorsement hierarchy is closed to us stays without a serial.
func (c *conn) identify(ctx context.Context) error {
	indices, err := c.handles(firstCertificate, lastCertificate)
	if err != nil {
		return err
	}
	for _, template := range attestation.EKTemplates() {
		if !slices.Contains(indices, template.CertificateIndex) {
			continue
		}
		data, err := c.readNV(template.CertificateIndex)
		if _, lost := errors.AsType[*lostError](err); lost {
			return err
		}
		var first asn1.RawValue
		if _, err := asn1.Unmarshal(data, &first); err != nil {
			continue // some makers leave the index empty
		}
		certificate, err := attestation.ParseEKCertificate(first.FullBytes) // without the padding behind it
		if err != nil {
			continue
		}
		serial, err := serialOf(certificate.PublicKey)
		if err != nil {
			continue
		}
		c.ek = endorsement{template: template, certificate: first.FullBytes, serial: serial}
		c.ek.handle, err = c.findEK(certificate.PublicKey)
		return err
	}
	c.ek.template = attestation.EKTemplates()[0]
	key, err := c.primary(ctx, tpm2.TPMRHEndorsement, c.ek.template.Public)
	if _, lost := errors.AsType[*lostError](err); err != nil {
		if lost {
			return err
		}
		return nil
	}
	public, err := attestation.PublicKey(key.public)
	if err == nil {
		c.ek.serial, err = serialOf(public)
	}
	return errors.Join(err, c.flush(key.Handle))
}

// serialOf returns the digest of a key by which a TPM is called.
func serialOf(public crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:serialSize]), nil
}

// findEK returns the persistent handle of the key with the given public half, 0 if it is not persistent.
func (c *conn) findEK(want crypto.PublicKey) (tpm2.TPMHandle, error) {
	handles, err := c.handles(firstEK, lastEK)
	if err != nil {
		return 0, err
	}
	for _, handle := range handles {
		public, _, err := c.readPublic(handle)
		if err != nil {
			return 0, err
		}
		key, err := attestation.PublicKey(public)
		if err != nil {
			continue
		}
		if k, ok := key.(interface{ Equal(crypto.PublicKey) bool }); ok && k.Equal(want) {
			return handle, nil
		}
	}
	return 0, nil
}

// loadEK returns the endorsement key, and a function to be called when it was used.
func (c *conn) loadEK(ctx context.Context) (storageKey, func() error, error) {
	if c.ek.handle != 0 {
		public, name, err := c.readPublic(c.ek.handle)
		if err != nil {
			return storageKey{}, nil, err
		}
		return storageKey{tpm2.NamedHandle{Handle: c.ek.handle, Name: name}, public, true}, func() error { return nil }, nil
	}
	key, err := c.primary(ctx, tpm2.TPMRHEndorsement, c.ek.template.Public)
	if err != nil {
		return storageKey{}, nil, err
	}
	c.slots.capacity--
	return key, func() error {
		c.slots.capacity++
		return c.flush(key.Handle)
	}, nil
}

// proveEK begins the session with the endorsement key that the configuration expects: only the TPM that holds its private
// half can answer in it.
func (c *conn) proveEK(ctx context.Context) error {
	key, done, err := c.loadEK(ctx)
	if err != nil {
		return err
	}
	public, err := attestation.PublicKey(key.public)
	if err != nil {
		return errors.Join(err, done())
	}
	serial, err := serialOf(public)
	if err != nil {
		return errors.Join(err, done())
	}
	if serial != c.cfg.ExpectedEK {
		return errors.Join(holdfast.Errorf(holdfast.ErrUnavailable, "", "the TPM at %s is %s, and %s is expected",
			c.cfg.Device, serial, c.cfg.ExpectedEK), done())
	}
	if c.session, err = startSession(c, key.Handle, key.public); err != nil {
		return errors.Join(err, done())
	}
	// The answer to the first command in the session shows that the TPM decrypted the salt.
	if _, err = (tpm2.GetRandom{BytesRequested: nonceSize}).Execute(c, c.session.secret(nil, false, true)); err != nil {
		return errors.Join(holdfast.Errorf(holdfast.ErrUnavailable, "", "what answers at %s does not hold the endorsement "+
			"key of TPM %s: %w", c.cfg.Device, serial, err), done())
	}
	return done()
}

// chain returns the CA certificates that the TPM holds, in PEM.
func (c *conn) chain() ([]byte, error) {
	indices, err := c.handles(firstChain, lastChain)
	if err != nil {
		return nil, err
	}
	var all []byte // one run of certificates over all indices (TCG EK Credential Profile, section 2.2.1.5.2)
	for _, index := range indices {
		data, err := c.readNV(index)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	var text []byte
	for len(all) > 0 {
		var certificate asn1.RawValue
		rest, err := asn1.Unmarshal(all, &certificate)
		if err != nil {
			break // padding
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.FullBytes})...)
		all = rest
	}
	return text, nil
}

// maxCertificate bounds what is read from an NV index; EK certificates have 1 to 2 kB.
const maxCertificate = 16384

// readNV returns the contents of an NV index that anybody may read.
func (c *conn) readNV(index tpm2.TPMHandle) ([]byte, error) {
	answer, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c)
	if err != nil {
		return nil, err
	}
	public, err := answer.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	chunk, err := c.property(tpm2.TPMPTNVBufferMax)
	if err != nil {
		return nil, err
	}
	if chunk == 0 {
		chunk = 512 // a TPM that does not tell, as the first ones
	}
	size := min(uint32(public.DataSize), maxCertificate)
	var data []byte
	for uint32(len(data)) < size {
		read, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: answer.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: answer.NVName},
			Size:       uint16(min(chunk, size-uint32(len(data)))),
			Offset:     uint16(len(data)),
		}.Execute(c)
		if err != nil {
			return nil, err
		}
		if len(read.Data.Buffer) == 0 {
			break
		}
		data = append(data, read.Data.Buffer...)
	}
	return data, nil
}
