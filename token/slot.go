//go:build cgo && !nopiv

package token

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"

	"holdfast"
	"holdfast/token/attestation"

	"github.com/go-piv/piv-go/v2/piv"
)

// slotOf returns piv-go's name of a slot that parsePlace accepted.
func slotOf(place string) piv.Slot {
	switch place {
	case "9a":
		return piv.SlotAuthentication
	case "9c":
		return piv.SlotSignature
	case "9d":
		return piv.SlotKeyManagement
	case "9e":
		return piv.SlotCardAuthentication
	}
	n, _ := strconv.ParseUint(place, 16, 8)
	slot, _ := piv.RetiredKeyManagementSlot(uint32(n))
	return slot
}

// presence is whether there is a key in a slot. Cards older than 5.3 do not tell of imported keys, the oldest of none.
type presence uint8

const (
	unknown presence = iota
	absent
	present
)

// content is what a slot holds.
type content struct {
	place string
	slot  piv.Slot

	mark        mark
	certificate crypto.PublicKey // the key that the certificate names, nil for none

	key     presence
	public  crypto.PublicKey // of the key itself, as the card tells it; nil where it does not
	origin  piv.Origin       // 0 where the card does not tell
	pin     piv.PINPolicy    // 0 where the card does not tell
	touch   piv.TouchPolicy  // 0 where the card does not tell
	missing bool             // the card has no such slot
}

// free reports whether a key may be made in the slot.
func (c content) free() bool {
	return !c.missing && (c.mark.role == roleDestroyed || c.mark.role == roleNone && c.key != present)
}

// readSlot asks the card what it has in a slot.
func (b *Backend) readSlot(s *session, place string) (content, error) {
	c := content{place: place, slot: slotOf(place)}
	if err := b.readKey(s, &c); err != nil {
		return c, fmt.Errorf("read slot %s: %w", place, err)
	}
	if c.missing {
		return c, nil
	}
	cert, err := s.yk.Certificate(c.slot)
	switch {
	case err == nil:
		c.mark, c.certificate = readMark(cert), publicOf(cert)
	case errors.Is(err, piv.ErrNotFound):
		c.mark.role = roleNone
	case gone(err):
		return c, fmt.Errorf("read the certificate in slot %s: %w", place, err)
	default:
		c.mark.role = roleForeign // something that cannot be read as a certificate, but it is there
	}
	return c, nil
}

func (b *Backend) readKey(s *session, c *content) error {
	if !b.noMetadata {
		known, err := b.readMetadata(s, c)
		if known || err != nil {
			return err
		}
	}
	if b.noAttest {
		return nil
	}
	return b.readAttestation(s, c)
}

// readMetadata reports whether the card has the command.
func (b *Backend) readMetadata(s *session, c *content) (known bool, err error) {
	info, err := s.yk.KeyInfo(c.slot)
	switch sw := statusOf(err); {
	case err == nil:
		c.key, c.public, c.origin = present, info.PublicKey, info.Origin
		c.pin, c.touch = info.PINPolicy, info.TouchPolicy
	case gone(err):
		return true, err
	case errors.Is(err, piv.ErrNotFound):
		c.key = absent
	case sw == swWrongP1P2:
		c.missing = true
	case notOffered(err):
		b.noMetadata = true
		return false, nil
	default: // there is a key of which the card tells something that piv-go does not understand
		c.key = present
		if b.noAttest {
			return true, nil
		}
		return true, b.readAttestation(s, c)
	}
	return true, nil
}

// readAttestation learns of a generated key from its attestation; for an imported one the card has none.
func (b *Backend) readAttestation(s *session, c *content) error {
	cert, err := s.yk.Attest(c.slot)
	switch {
	case err == nil:
		c.key, c.public, c.origin = present, publicOf(cert), piv.OriginGenerated
		if report, err := attestation.Parse(cert.Raw); err == nil {
			c.pin, c.touch = attestedPolicies(report)
		}
	case gone(err):
		return err
	case notOffered(err):
		b.noAttest = true
	case statusOf(err) == 0 && !errors.Is(err, piv.ErrNotFound): // it attests, in a form that crypto/x509 does not take
		c.key = present
	}
	return nil
}

// attestedPolicies returns the policies in an attestation in piv-go's words, which number them alike.
func attestedPolicies(r attestation.Report) (piv.PINPolicy, piv.TouchPolicy) {
	pin := piv.PINPolicy(r.PIN)
	if r.Biometric {
		pin += piv.PINPolicyMatchOnce - piv.PINPolicyOnce
	}
	return pin, piv.TouchPolicy(r.Touch)
}

// holdsMarked reports whether the slot holds the key that its certificate, made by Holdfast, says.
func (c content) holdsMarked() bool {
	return c.mark.role == roleKey && c.key != absent && (c.public == nil || samePublic(c.public, c.certificate))
}

// errHalfMade and errReplaced are why a slot's key cannot be used.
func errHalfMade(ref holdfast.Ref) error {
	e := holdfast.Errorf(holdfast.ErrIntegrity, "",
		"a key was made or destroyed half here when the card or the daemon went away; destroy it")
	e.Ref = ref
	return e
}

func errReplaced(ref holdfast.Ref) error {
	e := holdfast.Errorf(holdfast.ErrIntegrity, "",
		"the slot holds another key than its certificate says: another program put one there, or the card was reset")
	e.Ref = ref
	return e
}

// keyOf returns the key in a slot. It returns ErrNotFound for a slot that holds none.
func (b *Backend) keyOf(c content) (*key, error) {
	switch c.mark.role {
	case roleKey:
		ref := canonical(b.serial, c.place, c.mark.id)
		if !c.holdsMarked() {
			return nil, errReplaced(ref)
		}
		return b.newKey(c, ref, c.mark.algorithm, c.certificate), nil
	case roleHalfMade:
		return nil, errHalfMade(canonical(b.serial, c.place, c.mark.id))
	}
	if c.free() || c.missing {
		return nil, holdfast.Errorf(holdfast.ErrNotFound, "", "slot %s is empty", c.place)
	}
	return b.foreignKey(c)
}

// foreignKey returns a key that another program put into a slot.
func (b *Backend) foreignKey(c content) (*key, error) {
	public := c.public
	if public == nil {
		public = c.certificate
	}
	if c.key == absent || public == nil {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"slot %s: another program put something there that is no usable key", c.place)
	}
	a, ok := foreignAlgorithm(c.place, public)
	if !ok {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "",
			"slot %s holds a key of a kind that has no algorithm here (%T)", c.place, public)
	}
	id, err := publicID(public)
	if err != nil {
		return nil, err
	}
	return b.newKey(c, canonical(b.serial, c.place, id), a, public), nil
}

// foreignAlgorithm says what a key made by another program is used for: keys in slot 9d are for key management (SP
// 800-73-4, part 1, section 3.2.3), others sign; RSA keys by RSASSA-PKCS1-v1_5, as PIV programs do.
func foreignAlgorithm(place string, public crypto.PublicKey) (holdfast.Algorithm, bool) {
	var candidates []holdfast.Algorithm
	switch public.(type) {
	case *ecdsa.PublicKey:
		candidates = []holdfast.Algorithm{holdfast.ES256, holdfast.ES384}
		if place == "9d" {
			candidates = []holdfast.Algorithm{holdfast.ECDHP256, holdfast.ECDHP384}
		}
	case *ecdh.PublicKey:
		candidates = []holdfast.Algorithm{holdfast.ECDHX25519}
	case ed25519.PublicKey:
		candidates = []holdfast.Algorithm{holdfast.EdDSA}
	case *rsa.PublicKey:
		candidates = []holdfast.Algorithm{holdfast.RS256_2048, holdfast.RS256_3072, holdfast.RS256_4096}
	}
	for _, a := range candidates {
		if a.CheckPublic(typedPublic(a, public)) == nil {
			return a, true
		}
	}
	return "", false
}

// writeCertificate stores cert in the slot and reads it back.
func writeCertificate(s *session, managementKey []byte, slot piv.Slot, cert *x509.Certificate) error {
	s.committed = true
	if err := s.yk.SetCertificate(managementKey, slot, cert); err != nil {
		return fmt.Errorf("store the certificate: %w", err)
	}
	back, err := s.yk.Certificate(slot)
	if err != nil {
		return fmt.Errorf("read the certificate back: %w", err)
	}
	if !back.Equal(cert) {
		return holdfast.Errorf(holdfast.ErrIntegrity, "", "the card returns another certificate than was stored")
	}
	return nil
}

// writeMark stores a certificate that stands for no key.
func writeMark(s *session, managementKey []byte, slot piv.Slot, m mark) error {
	cert, err := m.certificate(nil, nil)
	if err != nil {
		return err
	}
	return writeCertificate(s, managementKey, slot, cert)
}
