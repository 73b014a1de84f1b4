package tpm

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
)

var _ holdfast.Examiner = (*Backend)(nil)

// Examine asks the TPM for failed authorizations, and says what its endorsement key and device mean for its keys. It shows
// no authValue to an object.
func (b *Backend) Examine(ctx context.Context) ([]string, error) {
	var concerns []string
	err := b.run(ctx, "examine", "", healing, func(c *conn) error {
		values, err := c.properties(tpm2.TPMPTLockoutCounter, 3)
		if err != nil {
			return err
		}
		concerns = append(c.endorsementConcerns(), lockoutConcerns(values)...)
		if c.direct && strings.HasPrefix(b.cfg.Device, "/dev/") {
			concerns = append(concerns, fmt.Sprintf("no other program can use the TPM while %s is open: use /dev/tpmrm0", b.cfg.Device))
		}
		return nil
	})
	return concerns, err
}

func lockoutConcerns(values map[tpm2.TPMPT]uint32) []string {
	failed, limit, interval := values[tpm2.TPMPTLockoutCounter], values[tpm2.TPMPTMaxAuthFail], values[tpm2.TPMPTLockoutInterval]
	switch {
	case failed == 0:
		return nil
	case failed >= limit:
		return []string{fmt.Sprintf("the TPM is locked after %d failed authorizations, and sealed secrets with an AuthValue do not open: "+
			"wait up to %d seconds, or reset it with the lockout authority (tpm2_dictionarylockout -c)", failed, interval)}
	default:
		return []string{fmt.Sprintf("the TPM counts %d failed authorizations and locks at %d: find out who guesses; one is forgotten "+
			"every %d seconds", failed, limit, interval)}
	}
}

func (c *conn) endorsementConcerns() []string {
	switch {
	case c.ek.serial == "":
		return []string{"the TPM's endorsement hierarchy is closed, so it cannot be told from others and its keys cannot be attested: " +
			"give its authValue, or enable it in the firmware setup"}
	case c.ek.certificate == nil:
		return []string{"the TPM holds no certificate of its maker, so nobody can tell from evidence that it is genuine: " +
			"ask the maker for one"}
	default:
		return nil
	}
}
