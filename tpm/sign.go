package tpm

import (
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// TPM2_Sign is what a daemon does all day, so its command is put together here instead of by reflection, as go-tpm does:
// that takes a tenth of the time of a whole signature on swtpm, during which the TPM would have nothing to do. What does
// not depend on the session is done before and after the caller's turn.

// signParameters returns the parameters of TPM2_Sign (Part 3, section 20.2): digest, scheme, and the null ticket of a
// digest that the TPM did not make.
func signParameters(info algorithmInfo, digest []byte) []byte {
	p := make([]byte, 0, 2+len(digest)+4+8)
	p = binary.BigEndian.AppendUint16(p, uint16(len(digest)))
	p = append(p, digest...)
	p = binary.BigEndian.AppendUint16(p, uint16(info.scheme)) // TPMT_SIG_SCHEME
	p = binary.BigEndian.AppendUint16(p, uint16(info.hash))
	p = binary.BigEndian.AppendUint16(p, uint16(tpm2.TPMSTHashCheck)) // TPMT_TK_HASHCHECK
	p = binary.BigEndian.AppendUint32(p, uint32(tpm2.TPMRHNull))
	return binary.BigEndian.AppendUint16(p, 0)
}

// sign sends TPM2_Sign with a loaded key, authorized by the session, and returns the TPMT_SIGNATURE.
func (c *conn) sign(key tpm2.NamedHandle, parameters []byte) ([]byte, error) {
	if err := c.session.NewNonceCaller(); err != nil {
		return nil, err
	}
	use := sessionUse{session: c.session}
	auth, err := use.Authorize(tpm2.TPMCCSign, parameters, nil, []tpm2.TPM2BName{key.Name}, 0)
	if err != nil {
		return nil, err
	}
	// The command (Part 1, section 16.4): header, handle, authorization area, parameters.
	command := make([]byte, 0, 256)
	command = binary.BigEndian.AppendUint16(command, uint16(tpm2.TPMSTSessions))
	command = binary.BigEndian.AppendUint32(command, 0) // the size, below
	command = binary.BigEndian.AppendUint32(command, uint32(tpm2.TPMCCSign))
	command = binary.BigEndian.AppendUint32(command, uint32(key.Handle))
	command = binary.BigEndian.AppendUint32(command, uint32(4+2+len(auth.Nonce.Buffer)+1+2+len(auth.Authorization.Buffer)))
	command = binary.BigEndian.AppendUint32(command, uint32(auth.Handle))
	command = append2B(command, auth.Nonce.Buffer)
	command = append(command, attributeBits(auth.Attributes))
	command = append2B(command, auth.Authorization.Buffer)
	command = append(command, parameters...)
	binary.BigEndian.PutUint32(command[2:], uint32(len(command)))
	answer, err := c.Send(command)
	if err != nil {
		return nil, err
	}
	return use.open(tpm2.TPMCCSign, answer)
}

// open takes apart the answer to a command without handles in its answer, checks its authorization, and returns the
// parameters.
func (u *sessionUse) open(cc tpm2.TPMCC, answer []byte) ([]byte, error) {
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])); rc != tpm2.TPMRCSuccess {
		return nil, rc
	}
	rest := answer[headerSize:]
	if binary.BigEndian.Uint16(answer) != uint16(tpm2.TPMSTSessions) || len(rest) < 4 ||
		uint64(len(rest)-4) < uint64(binary.BigEndian.Uint32(rest)) {
		return nil, errForged
	}
	size := binary.BigEndian.Uint32(rest)
	parameters, rest := rest[4:4+size], rest[4+size:]
	nonce, rest, ok := cut2B(rest)
	if !ok || len(rest) < 1 {
		return nil, errForged
	}
	attributes, rest := rest[0], rest[1:]
	mac, rest, ok := cut2B(rest)
	if !ok || len(rest) != 0 {
		return nil, errForged
	}
	return parameters, u.check(cc, parameters, nonce, attributes, mac)
}

func append2B(b, contents []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(contents))), contents...)
}

// cut2B returns the contents of the TPM2B that b begins with, and what is behind it.
func cut2B(b []byte) (contents, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:end], b[end:], true
}

// decodeSignature returns the signature in a TPMT_SIGNATURE in the form of holdfast.Key.Sign.
func decodeSignature(data []byte) ([]byte, error) {
	if len(data) < 4 { // the algorithms of signature and hash
		return nil, fmt.Errorf("the TPM returned a signature of %d bytes", len(data))
	}
	first, rest, ok := cut2B(data[4:])
	if !ok {
		return nil, fmt.Errorf("the TPM returned a signature that is cut off")
	}
	switch alg := tpm2.TPMAlgID(binary.BigEndian.Uint16(data)); alg {
	case tpm2.TPMAlgRSASSA, tpm2.TPMAlgRSAPSS:
		return first, nil
	case tpm2.TPMAlgECDSA:
		second, _, ok := cut2B(rest)
		if !ok {
			return nil, fmt.Errorf("the TPM returned a signature that is cut off")
		}
		return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(first), new(big.Int).SetBytes(second)})
	default:
		return nil, fmt.Errorf("the TPM signed with algorithm %#x", uint16(alg))
	}
}
