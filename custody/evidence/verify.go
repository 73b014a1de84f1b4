package evidence

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"holdfast"
	"holdfast/internal/pubkey"
	piv "holdfast/token/attestation"
	tpm "holdfast/tpm/attestation"
)

// Options say what the verifier knows beforehand. All are optional; nil Options know nothing.
type Options struct {
	// Roots are the certificates that makers of PIV cards and TPMs certify theirs under, intermediate ones included. When
	// given, evidence of those devices has to lead to one of them.
	Roots *x509.CertPool

	// TrustedAttestors are the public keys (SubjectPublicKeyInfo, DER) of attestation keys that the verifier knows to be in
	// a device: those of PKCS#11 tokens, and those of TPMs.
	TrustedAttestors [][]byte

	// ExpectPublic is the key the evidence must be about.
	ExpectPublic crypto.PublicKey

	// Nonce is what the verifier asked the evidence to be made for.
	Nonce []byte
}

// Report says what evidence that holds says, and who vouches for it.
type Report struct {
	Statement

	// Algorithm and Public are those of the key, and Name and Purpose what its custodian calls it.
	Algorithm holdfast.Algorithm
	Public    crypto.PublicKey // nil for a secret key
	Name      string
	Purpose   string

	// Kind is "pkcs11-attributes", "tpm2-certify" or "piv-attestation".
	Kind string

	// Lines say, one sentence each, what was checked and who vouches for it.
	Lines []string

	// Warnings say what the evidence does not show, or shows to be weaker than one would like.
	Warnings []string

	// Attestor is the device's key that signed the evidence. A verifier who has a reason to believe that it is in the
	// device names it in Options.TrustedAttestors from then on.
	Attestor crypto.PublicKey

	// Anchored is set when the proof ends in something the verifier named: a root, or an attestor.
	Anchored bool
}

// Verify checks a bundle, the files by name. It returns ErrIntegrity, naming the file, for anything in it that does not
// hold or fit together, also when the evidence itself says that the key is not safe; ErrUnsupported for evidence of a
// kind or format that it does not know, or that cannot show what Options ask.
//
// Evidence that holds and is not anchored in something the verifier named proves only that somebody made it who holds
// the keys that signed it; Report.Anchored tells.
func Verify(files map[string][]byte, o *Options) (Report, error) {
	if o == nil {
		o = &Options{}
	}
	if err := checkFiles(files); err != nil {
		return Report{}, err
	}
	if err := checkSums(files); err != nil {
		return Report{}, err
	}
	text, ok := files[FileStatement]
	if !ok {
		return Report{}, broken(FileStatement, "the file is missing")
	}
	c, err := parseStatement(text)
	if err != nil {
		return Report{}, err
	}
	v := &verification{claim: c, options: o, files: maps.Clone(files), challenge: Challenge(text)}
	delete(v.files, FileStatement)
	delete(v.files, FileSums)
	if err := v.checkExpected(); err != nil {
		return Report{}, err
	}
	check, kind := v.checker()
	if check == nil {
		return Report{}, holdfast.Errorf(holdfast.ErrUnsupported, "verify evidence",
			"%s: what devices of the kind %q say cannot be checked; known are pkcs11, tpm2 and piv", FileStatement, c.Device.Kind)
	}
	v.report = Report{
		Statement: c.Statement, Algorithm: c.algorithm, Public: c.public, Name: c.Key.Name, Purpose: c.Key.Purpose, Kind: kind,
		Lines: []string{fmt.Sprintf("All %d files are as they were when the evidence was made (%s).", len(files),
			FileSums)},
	}
	if err := check(); err != nil {
		return Report{}, err
	}
	v.summarize()
	return v.report, nil
}

// checker returns what checks the device's files, and the kind of evidence they are.
func (v *verification) checker() (check func() error, kind string) {
	switch kind = kinds[v.Device.Kind]; kind {
	case attributesKind:
		return v.attributes, kind
	case tpm.Kind:
		return v.tpm, kind
	case piv.Kind:
		return v.piv, kind
	default:
		return nil, ""
	}
}

// checkFiles bounds what is looked at.
func checkFiles(files map[string][]byte) error {
	if len(files) > maxFiles {
		return holdfast.Errorf(holdfast.ErrIntegrity, "verify evidence", "a bundle has at most %d files, not %d",
			maxFiles, len(files))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !plain(name) || len(files[name]) > maxFile {
			return holdfast.Errorf(holdfast.ErrIntegrity, "verify evidence",
				"%q: no file of a bundle is called so, or is this long (%d bytes)", name, len(files[name]))
		}
	}
	return nil
}

// verification is one Verify in progress.
type verification struct {
	*claim
	options   *Options
	files     map[string][]byte // the device's
	challenge []byte
	report    Report
}

// say adds a line to the report.
func (v *verification) say(format string, args ...any) {
	v.report.Lines = append(v.report.Lines, fmt.Sprintf(format, args...))
}

// warn adds a warning to the report.
func (v *verification) warn(format string, args ...any) {
	v.report.Warnings = append(v.report.Warnings, fmt.Sprintf(format, args...))
}

// checkExpected checks that the statement is about the key and the nonce that the verifier expects.
func (v *verification) checkExpected() error {
	if v.options.ExpectPublic != nil {
		want, err := pubkey.MarshalSPKI(v.options.ExpectPublic)
		if err != nil {
			return err
		}
		if !bytes.Equal(want, v.spki) {
			return broken(FileStatement, "the evidence is about another key than the one expected")
		}
	}
	if len(v.options.Nonce) > 0 && !bytes.Equal(v.options.Nonce, v.nonce) {
		return broken(FileStatement, "the evidence was not made for the nonce expected")
	}
	return nil
}

// summarize adds what holds for all kinds.
func (v *verification) summarize() {
	if len(v.options.Nonce) > 0 {
		v.say("It was made for the nonce you chose.")
	}
	if v.options.ExpectPublic != nil {
		v.say("It is about the public key you expect.")
	}
	if !v.report.Anchored {
		v.warn("Nothing you named vouches for this: it shows only that whoever made it holds the keys that signed it.")
	}
}

// attested reports whether the verifier named the key as one that is in a device.
func (v *verification) attested(spki []byte) bool {
	return slices.ContainsFunc(v.options.TrustedAttestors, func(trusted []byte) bool { return bytes.Equal(trusted, spki) })
}

// deviceError returns the error of a device's verifier with the code that evidence has which does not hold.
func deviceError(err error) error {
	if code := holdfast.CodeOf(err); code == holdfast.ErrIntegrity {
		return err
	}
	return holdfast.Errorf(holdfast.ErrIntegrity, "", "%w", err)
}
