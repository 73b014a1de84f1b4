package tpm

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// reblob encodes a blob anew after a change, with a digest that fits: an edit that was made on purpose.
func reblob(t *testing.T, blob *keyBlob, change func(*tssKey, *blobTrailer)) []byte {
	t.Helper()
	var tss tssKey
	var trailer blobTrailer
	rest, err := asn1.Unmarshal(blob.encoded, &tss)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(rest, &trailer); err != nil {
		t.Fatal(err)
	}
	change(&tss, &trailer)
	first, err := asn1.Marshal(tss)
	if err != nil {
		t.Fatal(err)
	}
	second, err := asn1.Marshal(trailer)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(first, second...), blobDigest(first, second)...)
}

// TestBlobEditedOnPurpose changes a blob and makes its digest fit. The TPM or the parser has to refuse it.
func TestBlobEditedOnPurpose(t *testing.T) {
	b := openDevice(t, Config{}, softhsmtest.TPMFor(t))
	k, other := mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped).(wrappedKey), mustGenerate(t, b, holdfast.ES256, holdfast.Wrapped).(wrappedKey)
	for name, c := range map[string]struct {
		change func(*tssKey, *blobTrailer)
		want   holdfast.Code
	}{
		"a bit of the private half":  {func(k *tssKey, _ *blobTrailer) { k.Private[40] ^= 1 }, holdfast.ErrIntegrity},
		"another private half":       {func(k *tssKey, _ *blobTrailer) { k.Private = tpm2.Marshal(other.blob.private) }, holdfast.ErrIntegrity},
		"another public key":         {func(k *tssKey, _ *blobTrailer) { k.Public = tpm2.Marshal(other.blob.public) }, holdfast.ErrIntegrity},
		"attributes that let it go":  {func(k *tssKey, _ *blobTrailer) { k.Public[9] &^= 0x12 }, holdfast.ErrIntegrity},
		"a parent that is not there": {func(_ *tssKey, t *blobTrailer) { t.ParentName[5] ^= 1 }, holdfast.ErrInvalid},
		"no parent":                  {func(_ *tssKey, t *blobTrailer) { t.ParentName = nil }, holdfast.ErrInvalid},
		"another version":            {func(_ *tssKey, t *blobTrailer) { t.Version++ }, holdfast.ErrIntegrity},
		"a password":                 {func(k *tssKey, _ *blobTrailer) { k.EmptyAuth = false }, holdfast.ErrIntegrity},
		"another type":               {func(k *tssKey, _ *blobTrailer) { k.Type[5]++ }, holdfast.ErrIntegrity},
		"a size that is not":         {func(k *tssKey, _ *blobTrailer) { k.Private[0] ^= 1 }, holdfast.ErrIntegrity},
	} {
		loaded, err := b.Load(t.Context(), reblob(t, k.blob, c.change))
		if err == nil {
			err = signed(t, loaded, name)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// A ticket is looked at when the creation is certified.
	for name, change := range map[string]func(*tssKey, *blobTrailer){
		"ticket":        func(_ *tssKey, t *blobTrailer) { t.Ticket[len(t.Ticket)-1] ^= 1 },
		"creation data": func(_ *tssKey, t *blobTrailer) { t.CreationData[len(t.CreationData)-1] ^= 1 },
	} {
		loaded, err := b.Load(t.Context(), reblob(t, k.blob, change))
		if err != nil {
			t.Fatal(err)
		}
		mustSign(t, loaded, "with another "+name)
		if _, err := loaded.(holdfast.Attester).Attest(t.Context(), make([]byte, 32)); !errors.Is(err, holdfast.ErrIntegrity) {
			t.Errorf("attest with another %s: %v", name, err)
		}
	}
	mustSign(t, k, "in the end")
}

// TestSealedEditedOnPurpose does the same to a sealed blob: loosening its conditions must not help.
func TestSealedEditedOnPurpose(t *testing.T) {
	b := openDevice(t, Config{}, softhsmtest.TPMFor(t))
	blob, err := b.Seal(t.Context(), holdfast.NewSecret([]byte("secret")), &holdfast.SealOptions{PCRs: []int{7}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*sealedHeader, *sealedBlob)
		want   holdfast.Code
	}{
		"no PCRs":         {func(h *sealedHeader, _ *sealedBlob) { h.PCRs = nil }, holdfast.ErrDenied},
		"another value":   {func(h *sealedHeader, _ *sealedBlob) { h.PCRs[0].Value[0] ^= 1 }, holdfast.ErrDenied},
		"another PCR":     {func(h *sealedHeader, _ *sealedBlob) { h.PCRs[0].Index = 8 }, holdfast.ErrDenied},
		"no such PCR":     {func(h *sealedHeader, _ *sealedBlob) { h.PCRs[0].Index = 24 }, holdfast.ErrIntegrity},
		"a PCR twice":     {func(h *sealedHeader, _ *sealedBlob) { h.PCRs = append(h.PCRs, h.PCRs[0]) }, holdfast.ErrIntegrity},
		"another version": {func(h *sealedHeader, _ *sealedBlob) { h.Version++ }, holdfast.ErrIntegrity},
		"another parent":  {func(h *sealedHeader, _ *sealedBlob) { h.ParentName[4] ^= 1 }, holdfast.ErrInvalid},
		"a private bit":   {func(h *sealedHeader, _ *sealedBlob) { h.Private[30] ^= 1 }, holdfast.ErrIntegrity},
		"ciphertext":      {func(_ *sealedHeader, b *sealedBlob) { b.Ciphertext[0] ^= 1 }, holdfast.ErrIntegrity},
		"nonce":           {func(_ *sealedHeader, b *sealedBlob) { b.Nonce[0] ^= 1 }, holdfast.ErrIntegrity},
		"short nonce":     {func(_ *sealedHeader, b *sealedBlob) { b.Nonce = b.Nonce[1:] }, holdfast.ErrIntegrity},
	} {
		var whole sealedBlob
		var header sealedHeader
		if _, err := asn1.Unmarshal(blob, &whole); err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(whole.Header.FullBytes, &header); err != nil {
			t.Fatal(err)
		}
		c.change(&header, &whole)
		der, err := asn1.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		whole.Header = asn1.RawValue{FullBytes: der}
		whole.Digest = whole.digest()
		edited, err := asn1.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Unseal(t.Context(), edited, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"nothing":          {Config{}, "name /dev/tpmrm0"},
		"a name":           {Config{Device: "tpm0"}, "name /dev/tpmrm0"},
		"no path":          {Config{Device: "unix:"}, "name /dev/tpmrm0"},
		"serial":           {Config{Device: "/dev/tpmrm0", ExpectedEK: "ab"}, "32 hexadecimal digits"},
		"handles reversed": {Config{Device: "/dev/tpmrm0", Handles: HandleRange{0x81000010, 0x81000001}}, "choose one within"},
		"handles outside":  {Config{Device: "/dev/tpmrm0", Handles: HandleRange{0x81800000, 0x81800001}}, "choose one within"},
		"timeout":          {Config{Device: "/dev/tpmrm0", CommandTimeout: -1}, "negative"},
		"a file":           {Config{Device: "/etc/passwd"}, "is no TPM device"},
	} {
		_, err := Open(t.Context(), c.cfg)
		if !errors.Is(err, holdfast.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, device := range map[string]string{
		"no device": "/dev/tpmrm99", "no socket": "unix:/nowhere/tpm.sock", "a device that is no TPM": "/dev/null",
	} {
		if _, err := Open(t.Context(), Config{Device: device}); !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTranslations holds the table to its promises: no code twice, and each TPM_RC's name in the error.
func TestTranslations(t *testing.T) {
	seen := map[tpm2.TPMRC]bool{}
	for _, tr := range translations {
		if seen[tr.rc] {
			t.Errorf("%v is listed twice", tr.rc)
		}
		seen[tr.rc] = true
		err := translate("op", "tpm:handle=0x81008000", tr.rc)
		if holdfast.CodeOf(err) != tr.code || !strings.Contains(err.Error(), "TPM_RC_") || !strings.Contains(err.Error(), "0x81008000") {
			t.Errorf("%v becomes %v", tr.rc, err)
		}
	}
	if err := translate("op", "", tpm2.TPMRCSequence); holdfast.CodeOf(err) != holdfast.ErrInternal {
		t.Errorf("a code that is not listed becomes %v", err)
	}
}

func TestRefs(t *testing.T) {
	for _, ref := range []holdfast.Ref{
		residentRef(0x81008000, ""), residentRef(0x81008000, "0123456789abcdef"), "tpm:name=000b00ff",
	} {
		if _, err := parseRef(ref); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []holdfast.Ref{
		"", "tpm:", "piv:handle=0x81008000", "tpm:handle=0x80000000", "tpm:handle=81008000", "tpm:handle=0x8100800", "tpm:handle",
		"tpm:handle=0x81008000;handle=0x81008001", "tpm:name=", "tpm:name=XY", "tpm:name=00;name=01", "tpm:serial=00",
		"tpm:name=00;handle=0x81008000", "tpm:name=00;serial=00", "tpm:handle=0x81008000;", "tpm:handle=0x81008000;pin=1",
		"tpm:handle=0x81008000;serial=AB", "tpm:handle=0x+1008000",
	} {
		if p, err := parseRef(ref); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%q: %+v, %v", ref, p, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("tpm:handle=0x81008000;serial=0123456789abcdef0123456789abcdef")
	f.Add("tpm:name=000b1234")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseRef(holdfast.Ref(text))
		if err != nil {
			if !errors.Is(err, holdfast.ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again := holdfast.Ref(refScheme + "name=" + p.name)
		if p.handle != 0 {
			again = residentRef(p.handle, p.serial)
		}
		if q, err := parseRef(again); err != nil || q != p {
			t.Errorf("%q is read as %+v, written as %q, read as %+v, %v", text, p, again, q, err)
		}
	})
}

// FuzzParseBlob begins with real blobs, without their digests, in testdata.
func FuzzParseBlob(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(bytes.Clone(body), blobDigest(body)...) // or nothing would get past the digest
		blob, err := parseBlob(data)
		if err != nil {
			if !errors.Is(err, holdfast.ErrIntegrity) {
				t.Errorf("parse: %v", err)
			}
			return
		}
		if !bytes.Equal(blob.encoded, data) {
			t.Error("the blob is kept in another form")
		}
		_, _ = new(Backend).keyOfBlob(blob)
	})
}

// FuzzParseSealed begins with real blobs, in testdata.
func FuzzParseSealed(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole sealedBlob
		if rest, err := asn1.Unmarshal(data, &whole); err == nil && len(rest) == 0 {
			whole.Digest = whole.digest() // or nothing would get past the digest
			if fixed, err := asn1.Marshal(whole); err == nil {
				data = fixed
			}
		}
		s, err := parseSealed(data)
		if err != nil {
			if !errors.Is(err, holdfast.ErrIntegrity) {
				t.Errorf("parse: %v", err)
			}
			return
		}
		if _, err := s.policy(); err != nil {
			t.Errorf("policy: %v", err)
		}
		_, _ = s.open(make([]byte, sealKeySize))
	})
}
