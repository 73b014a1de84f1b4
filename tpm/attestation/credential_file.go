package attestation

import (
	"encoding/binary"

	"holdfast"
)

// The head of a credential file as tpm2_makecredential writes and tpm2_activatecredential reads it, so that a verifier
// can use either program.
const (
	credentialMagic   = 0xBADCC0DE
	credentialVersion = 1
	maxCredentialFile = 4096
)

// Marshal returns the credential in the file format of tpm2-tools: magic, version, TPM2B_ID_OBJECT and
// TPM2B_ENCRYPTED_SECRET, all big endian.
func (c Credential) Marshal() []byte {
	out := binary.BigEndian.AppendUint32(nil, credentialMagic)
	out = binary.BigEndian.AppendUint32(out, credentialVersion)
	for _, part := range [][]byte{c.IDObject, c.EncryptedSeed} {
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

// ParseCredential reads what Marshal or tpm2_makecredential wrote. It returns ErrInvalid for anything else.
func ParseCredential(data []byte) (Credential, error) {
	if len(data) < 8 || len(data) > maxCredentialFile || binary.BigEndian.Uint32(data) != credentialMagic ||
		binary.BigEndian.Uint32(data[4:]) != credentialVersion {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, "activate credential",
			"this is no credential as `holdfast evidence challenge` or tpm2_makecredential writes it")
	}
	rest := data[8:]
	var parts [2][]byte
	for i := range parts {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, "activate credential", "the credential was truncated")
		}
		n := int(binary.BigEndian.Uint16(rest))
		parts[i], rest = rest[2:2+n], rest[2+n:]
	}
	if len(rest) != 0 || len(parts[0]) == 0 || len(parts[1]) == 0 {
		return Credential{}, holdfast.Errorf(holdfast.ErrInvalid, "activate credential",
			"the credential has empty parts, or bytes behind it")
	}
	return Credential{IDObject: parts[0], EncryptedSeed: parts[1]}, nil
}
