package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// rawTPM is a TPM used directly, on one connection that stays open: the base that the daemon is compared with.
type rawTPM struct {
	conn net.Conn
	tpm  transport.TPM
	turn chan struct{} // held by the one who talks to the TPM, which does one thing at a time
}

func openRawTPM(ctx context.Context, t *softhsmtest.TPM) (*rawTPM, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", t.SocketPath)
	if err != nil {
		return nil, err
	}
	return &rawTPM{conn: conn, tpm: transport.FromReadWriter(conn), turn: make(chan struct{}, 1)}, nil
}

func (r *rawTPM) close() error { return r.conn.Close() }

// signer makes a P-256 key under the storage root key, loads it, and returns the operation of signing message with it:
// the key stays loaded, and its empty password authorizes. One signature is checked.
func (r *rawTPM) signer(message []byte) (operation, error) {
	root, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(r.tpm)
	if err != nil {
		return operation{}, fmt.Errorf("TPM2_CreatePrimary: %w", err)
	}
	parent := tpm2.AuthHandle{Handle: root.ObjectHandle, Name: root.Name, Auth: tpm2.PasswordAuth(nil)}
	created, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(rawTemplate())}.Execute(r.tpm)
	if err != nil {
		return operation{}, fmt.Errorf("TPM2_Create: %w", err)
	}
	key, err := tpm2.Load{ParentHandle: parent, InPrivate: created.OutPrivate, InPublic: created.OutPublic}.Execute(r.tpm)
	if err != nil {
		return operation{}, fmt.Errorf("TPM2_Load: %w", err)
	}
	command := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
		Digest:    tpm2.TPM2BDigest{Buffer: holdfast.ES256.Digest(message)},
		InScheme: tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
		},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}
	answer, err := command.Execute(r.tpm)
	if err != nil {
		return operation{}, fmt.Errorf("TPM2_Sign: %w", err)
	}
	if err := verifyRaw(created.OutPublic, command.Digest.Buffer, answer.Signature); err != nil {
		return operation{}, err
	}
	return operation{signatures: 1, do: func(context.Context) error {
		r.turn <- struct{}{}
		_, err := command.Execute(r.tpm)
		<-r.turn
		return err
	}}, nil
}

// rawTemplate is a key for ECDSA on P-256 that cannot leave the TPM.
func rawTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
}

func verifyRaw(public tpm2.TPM2BPublic, digest []byte, signature tpm2.TPMTSignature) error {
	area, err := public.Contents()
	if err != nil {
		return err
	}
	point, err := area.Unique.ECC()
	if err != nil {
		return err
	}
	rs, err := signature.Signature.ECDSA()
	if err != nil {
		return err
	}
	uncompressed := make([]byte, 65)
	uncompressed[0] = 4
	number(point.X).FillBytes(uncompressed[1:33])
	number(point.Y).FillBytes(uncompressed[33:])
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		return err
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{number(rs.SignatureR), number(rs.SignatureS)})
	if err != nil {
		return err
	}
	return holdfast.Verify(holdfast.ES256, key, digest, der)
}

func number(b tpm2.TPM2BECCParameter) *big.Int { return new(big.Int).SetBytes(b.Buffer) }
