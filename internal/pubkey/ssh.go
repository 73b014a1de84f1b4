package pubkey

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"
)

// MarshalSSH returns pub as a line of OpenSSH's authorized_keys, with a comment unless that is empty and with a newline
// at its end. It returns ErrUnsupported for keys SSH has no type for: secp256k1 and key agreement.
func MarshalSSH(pub crypto.PublicKey, comment string) ([]byte, error) {
	if _, err := takeApart(pub); err != nil {
		return nil, err
	}
	if strings.TrimSpace(comment) != comment || strings.ContainsFunc(comment, unicode.IsControl) {
		return nil, invalid("the comment of an SSH key is one line of text without outer spaces")
	}
	if _, agreement := pub.(*ecdh.PublicKey); agreement {
		return nil, unsupported("SSH has no type for key agreement keys")
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, unsupported("SSH has no type for this key: %w", err)
	}
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(key), []byte("\n"))
	if comment != "" {
		line = append(append(line, ' '), comment...)
	}
	return append(line, '\n'), nil
}
