package attestation_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm"
	"holdfast/tpm/attestation"
)

// sample is evidence of a TPM about a key, and what belongs to it.
type sample struct {
	key       holdfast.Key
	files     map[string][]byte
	challenge []byte
	roots     *x509.CertPool
}

func (s sample) verify(files map[string][]byte, roots *x509.CertPool) (attestation.Report, error) {
	return attestation.VerifyEvidence(files, s.challenge, s.key.Public(), roots)
}

func openTPM(t testing.TB) (*tpm.Backend, *x509.CertPool) {
	t.Helper()
	device := softhsmtest.TPMFor(t)
	b, err := tpm.Open(t.Context(), tpm.Config{Device: "unix:" + device.SocketPath})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(device.CARoot) {
		t.Fatal("the TPM's CA has no certificates")
	}
	return b, roots
}

func newSample(t testing.TB, b *tpm.Backend, roots *x509.CertPool, a holdfast.Algorithm, r holdfast.Residence) sample {
	t.Helper()
	k, err := b.Generate(t.Context(), holdfast.KeySpec{
		Label: "attested", Algorithm: a, Residence: r, ID: []byte("sixteen bytes id"),
	})
	if err != nil {
		t.Fatal(err)
	}
	challenge := sha256.Sum256([]byte("challenge"))
	evidence, err := k.(holdfast.Attester).Attest(t.Context(), challenge[:])
	if err != nil {
		t.Fatal(err)
	}
	if evidence.Kind != attestation.Kind {
		t.Errorf("the evidence is of kind %q", evidence.Kind)
	}
	return sample{k, evidence.Files, challenge[:], roots}
}

func TestVerifyEvidence(t *testing.T) {
	b, roots := openTPM(t)
	var ak []byte
	for _, a := range []holdfast.Algorithm{holdfast.ES256, holdfast.ES512, holdfast.PS256_2048, holdfast.ECDHP384} {
		for _, r := range []holdfast.Residence{holdfast.Wrapped, holdfast.Resident} {
			s := newSample(t, b, roots, a, r)
			for _, pool := range []*x509.CertPool{roots, nil} {
				report, err := s.verify(s.files, pool)
				if err != nil {
					t.Fatalf("%s %s: %v", r, a, err)
				}
				if report.Anchored != (pool != nil) || report.EK == nil || report.EKCertificate == nil || report.ResetCount == 0 ||
					report.FirmwareVersion == 0 || report.Created != (r == holdfast.Wrapped) {
					t.Errorf("%s %s: report %+v", r, a, report)
				}
				if report.Created && string(report.OutsideInfo) != "sixteen bytes id" {
					t.Errorf("the creation names %q", report.OutsideInfo)
				}
				if ak == nil {
					ak = report.AKName
				}
				if !bytes.Equal(ak, report.AKName) {
					t.Error("the attestation key is another one each time")
				}
			}
		}
	}
}

// TestEveryByte flips a bit in each byte of each file, and every bit of what the attestation key signed.
func TestEveryByte(t *testing.T) {
	b, roots := openTPM(t)
	for _, r := range []holdfast.Residence{holdfast.Wrapped, holdfast.Resident} {
		s := newSample(t, b, roots, holdfast.ES256, r)
		for name, data := range s.files {
			step := 9 // the next bit of the next byte
			if name == attestation.FileCertify || name == attestation.FileSignature {
				step = 1
			}
			for i := 0; i < 8*len(data); i += step {
				edited := maps.Clone(s.files)
				edited[name] = bytes.Clone(data)
				edited[name][i/8] ^= 1 << (i % 8)
				if _, err := s.verify(edited, nil); !errors.Is(err, holdfast.ErrIntegrity) {
					t.Errorf("%s: bit %d flipped: %v", name, i, err)
				}
			}
			for _, data := range [][]byte{nil, data[:len(data)-1], append(bytes.Clone(data), 0)} {
				edited := maps.Clone(s.files)
				edited[name] = data
				if _, err := s.verify(edited, nil); !errors.Is(err, holdfast.ErrIntegrity) {
					t.Errorf("%s with %d bytes: %v", name, len(data), err)
				}
			}
			edited := maps.Clone(s.files)
			delete(edited, name)
			if _, err := s.verify(edited, nil); !errors.Is(err, holdfast.ErrIntegrity) {
				t.Errorf("%s missing: %v", name, err)
			}
		}
		edited := maps.Clone(s.files)
		edited["note.txt"] = []byte("trust me")
		if _, err := s.verify(edited, nil); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("a file too many: %v", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	b, roots := openTPM(t)
	s := newSample(t, b, roots, holdfast.ES256, holdfast.Wrapped)
	other := newSample(t, b, roots, holdfast.ES256, holdfast.Wrapped)
	if _, err := attestation.VerifyEvidence(s.files, s.challenge, other.key.Public(), nil); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("for another key: %v", err)
	}
	if _, err := attestation.VerifyEvidence(s.files, s.challenge, nil, nil); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("for no key: %v", err)
	}
	if _, err := attestation.VerifyEvidence(s.files, make([]byte, 32), s.key.Public(), nil); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("for another challenge: %v", err)
	}
	if _, err := attestation.VerifyEvidence(s.files, s.challenge[1:], s.key.Public(), nil); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("for a challenge of 31 bytes: %v", err)
	}
	if _, err := s.verify(s.files, x509.NewCertPool()); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("under other roots: %v", err)
	}
	if _, err := s.verify(nil, nil); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("without files: %v", err)
	}
}

// TestBindingByHand computes the binding as the documentation says, with sha256sum.
func TestBindingByHand(t *testing.T) {
	b, roots := openTPM(t)
	s := newSample(t, b, roots, holdfast.ES256, holdfast.Wrapped)
	dir := t.TempDir()
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(s.files)), func(name string) bool {
		return name == attestation.FileCertify || name == attestation.FileSignature
	})
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), s.files[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("(echo %x; sha256sum %s) | sha256sum", s.challenge, strings.Join(names, " "))
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := hex.EncodeToString(attestation.Binding(s.challenge, s.files)); strings.Fields(string(out))[0] != want {
		t.Errorf("sha256sum says %s, Binding %s", out, want)
	}
}

func TestActivateCredential(t *testing.T) {
	b, roots := openTPM(t)
	s := newSample(t, b, roots, holdfast.ES256, holdfast.Wrapped)
	report, err := s.verify(s.files, roots)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("only the TPM with this EK and AK")
	credential, err := attestation.MakeCredential(s.files[attestation.FileEK], report.AKName, secret)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.ActivateCredential(t.Context(), credential)
	if err != nil || !bytes.Equal(got.Bytes(), secret) {
		t.Errorf("activate: %q, %v", got.Bytes(), err)
	}
	for i := range credential.IDObject {
		edited := credential
		edited.IDObject = bytes.Clone(credential.IDObject)
		edited.IDObject[i] ^= 1
		if _, err := b.ActivateCredential(t.Context(), edited); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("byte %d of the credential edited: %v", i, err)
		}
	}
	for i := range credential.EncryptedSeed {
		edited := credential
		edited.EncryptedSeed = bytes.Clone(credential.EncryptedSeed)
		edited.EncryptedSeed[i] ^= 1
		if _, err := b.ActivateCredential(t.Context(), edited); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("byte %d of the seed edited: %v", i, err)
		}
	}
	// A credential for another attestation key is of no use to this one.
	other, err := attestation.MakeCredential(s.files[attestation.FileEK], report.KeyName, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ActivateCredential(t.Context(), other); !errors.Is(err, holdfast.ErrIntegrity) {
		t.Errorf("a credential for another key: %v", err)
	}
}

func TestMakeCredentialRefuses(t *testing.T) {
	b, roots := openTPM(t)
	s := newSample(t, b, roots, holdfast.ES256, holdfast.Wrapped)
	ek, name := s.files[attestation.FileEK], bytes.Repeat([]byte{1}, 34)
	for what, c := range map[string]struct{ ek, name, secret []byte }{
		"no secret":        {ek, name, nil},
		"a long secret":    {ek, name, make([]byte, 33)},
		"no name":          {ek, nil, []byte("x")},
		"no EK":            {nil, name, []byte("x")},
		"an EK cut off":    {ek[:len(ek)-1], name, []byte("x")},
		"an AK for the EK": {s.files[attestation.FileAK], name, []byte("x")},
		"a key for the EK": {s.files[attestation.FileKey], name, []byte("x")},
	} {
		if _, err := attestation.MakeCredential(c.ek, c.name, c.secret); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestEKTemplates has the TPM make a key of each template, and compares with those that the TPM was manufactured with.
func TestEKTemplates(t *testing.T) {
	b, _ := openTPM(t)
	_, ek, err := b.AttestationKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	public, err := attestation.ParsePublic(ek)
	if err != nil {
		t.Fatal(err)
	}
	matched := 0
	for _, template := range attestation.EKTemplates() {
		if attestation.OfTemplate(public, &template.Public) {
			matched++
		}
		if template.UserWithAuth != template.Public.ObjectAttributes.UserWithAuth {
			t.Errorf("the template of %#x contradicts itself", uint32(template.CertificateIndex))
		}
		for _, other := range attestation.EKTemplates() {
			if other.CertificateIndex != template.CertificateIndex && bytes.Equal(tpm2.Marshal(other.Public), tpm2.Marshal(template.Public)) {
				t.Errorf("two templates are the same")
			}
		}
	}
	if matched != 1 {
		t.Errorf("the TPM's EK is of %d templates", matched)
	}
}

// vector returns evidence that swtpm made about a wrapped key, from testdata.
func vector(t testing.TB) sample {
	t.Helper()
	challenge := sha256.Sum256([]byte("challenge"))
	s := sample{files: make(map[string][]byte), challenge: challenge[:]}
	entries, err := os.ReadDir("testdata/evidence")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if s.files[e.Name()], err = os.ReadFile(filepath.Join("testdata/evidence", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("testdata/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s.key = publicKey{public: public}
	return s
}

// publicKey is a key of which only the public half is at hand.
type publicKey struct {
	holdfast.Key
	public crypto.PublicKey
}

func (k publicKey) Public() crypto.PublicKey { return k.public }

func TestVector(t *testing.T) {
	s := vector(t)
	report, err := s.verify(s.files, nil)
	if err != nil || !report.Created || string(report.OutsideInfo) != "sixteen bytes id" {
		t.Errorf("report %+v, %v", report, err)
	}
}

// FuzzVerifyEvidence feeds the verifier what no TPM made; it must refuse, and not panic.
func FuzzVerifyEvidence(f *testing.F) {
	s := vector(f)
	names := slices.Sorted(maps.Keys(s.files))
	for i, name := range names {
		f.Add(i, s.files[name])
	}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		if i < 0 || i >= len(names) || bytes.Equal(data, s.files[names[i]]) {
			return
		}
		edited := maps.Clone(s.files)
		edited[names[i]] = data
		if _, err := s.verify(edited, nil); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("%s: %v", names[i], err)
		}
		if public, err := attestation.ParsePublic(data); err == nil {
			_, _ = attestation.PublicKey(public)
		}
	})
}
