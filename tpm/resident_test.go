package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
	"holdfast/tpm"
)

// persist puts a primary key of a template at a persistent handle, as another program would.
func persist(t *testing.T, conn transport.TPM, template tpm2.TPMTPublic, password string, handle tpm2.TPMHandle) {
	t.Helper()
	key, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{}),
		}},
		InPublic: tpm2.New2B(template),
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	evict(t, conn, tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}, handle)
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
}

func evict(t *testing.T, conn transport.TPM, object tpm2.NamedHandle, handle tpm2.TPMHandle) {
	t.Helper()
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: object, PersistentHandle: handle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
}

// remove removes what is at a persistent handle.
func remove(t *testing.T, conn transport.TPM, handle tpm2.TPMHandle) {
	t.Helper()
	public, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	evict(t, conn, tpm2.NamedHandle{Handle: handle, Name: public.Name}, handle)
}

// foreign is the template of a key that another program makes: no scheme, both uses, subject to dictionary attack protection.
func foreign() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, Decrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, new(tpm2.TPMSECCPoint)),
	}
}

// persistForeign makes keys as other programs would: a P-256 key, one with a password, an RSA key, an HMAC key, and one with
// a policy, at 0x81000010 and the handles after it.
func persistForeign(t *testing.T, conn transport.TPM) {
	t.Helper()
	rsa := foreign()
	rsa.Type = tpm2.TPMAlgRSA
	rsa.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048})
	rsa.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, new(tpm2.TPM2BPublicKeyRSA))
	hmac := foreign()
	hmac.Type, hmac.ObjectAttributes.Decrypt = tpm2.TPMAlgKeyedHash, false
	hmac.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{
		Scheme:  tpm2.TPMAlgHMAC,
		Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256}),
	}})
	hmac.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, new(tpm2.TPM2BDigest))
	policy := foreign()
	policy.ObjectAttributes.UserWithAuth = false
	policy.AuthPolicy.Buffer = make([]byte, 32)

	persist(t, conn, foreign(), "", 0x81000010)
	persist(t, conn, foreign(), "password", 0x81000011)
	persist(t, conn, rsa, "", 0x81000012)
	persist(t, conn, hmac, "", 0x81000013)
	persist(t, conn, policy, "", 0x81000014)
}

func TestKeysOfOtherPrograms(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	t.Run("make", func(t *testing.T) { persistForeign(t, rawConn(t, device)) })
	b := open(t, device)
	adopt := func(handle uint32, want holdfast.Algorithm) holdfast.Key {
		t.Helper()
		k, err := b.Key(t.Context(), holdfast.Ref(fmt.Sprintf("tpm:handle=%#x", handle)))
		if err != nil {
			t.Fatalf("adopt %#x: %v", handle, err)
		}
		if k.Algorithm() != want {
			t.Errorf("the key at %#x is %s, want %s", handle, k.Algorithm(), want)
		}
		return k
	}
	for handle, a := range map[uint32]holdfast.Algorithm{0x81000010: holdfast.ES256, 0x81000012: holdfast.RS256_2048} {
		k := adopt(handle, a)
		digest := a.Digest([]byte("adopted"))
		signature, err := k.Sign(t.Context(), digest, nil)
		if err == nil {
			err = holdfast.Verify(a, k.Public(), digest, signature)
		}
		if err != nil {
			t.Errorf("sign with the adopted key at %#x: %v", handle, err)
		}
	}
	for _, handle := range []uint32{0x81000013, 0x81000014, 0x81010001} { // HMAC, policy, endorsement key
		if _, err := b.Key(t.Context(), holdfast.Ref(fmt.Sprintf("tpm:handle=%#x", handle))); !errors.Is(err, holdfast.ErrUnsupported) {
			t.Errorf("adopt %#x: %v", handle, err)
		}
	}
	locked := adopt(0x81000011, holdfast.ES256)
	for range 5 { // three of which would lock the TPM, were they tried
		if _, err := locked.Sign(t.Context(), make([]byte, 32), nil); !errors.Is(err, holdfast.ErrAuth) {
			t.Errorf("sign with a key that has a password: %v", err)
		}
	}
	usable, unusable := 0, 0
	for _, err := range b.Keys(t.Context()) {
		if err == nil {
			usable++
		} else {
			unusable++
		}
	}
	if usable != 3 || unusable != 2 {
		t.Errorf("Keys lists %d usable and %d unusable keys, want 3 and 2", usable, unusable)
	}
	for range b.Keys(t.Context()) {
		break // must not go on
	}
	if err := b.Destroy(t.Context(), "tpm:handle=0x81010001"); !errors.Is(err, holdfast.ErrUnsupported) {
		t.Errorf("destroy the endorsement key: %v", err)
	}
	b = between(t, device, b, func(conn transport.TPM) {
		if n := lockoutCounter(t, conn); n != 1 {
			t.Errorf("the TPM counts %d failed tries, want the one", n)
		}
	})
	if err := b.Destroy(t.Context(), locked.Ref()); err != nil {
		t.Errorf("destroy an adopted key: %v", err)
	}
}

func lockoutCounter(t *testing.T, conn transport.TPM) uint32 {
	t.Helper()
	answer, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1,
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	properties, err := answer.CapabilityData.Data.TPMProperties()
	if err != nil {
		t.Fatal(err)
	}
	return properties.TPMProperty[0].Value
}

func TestPlaces(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b, err := tpm.Open(t.Context(), tpm.Config{
		Device: "unix:" + device.SocketPath, Handles: tpm.HandleRange{First: 0x81001000, Last: 0x81001001},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	spec := holdfast.KeySpec{Label: "place", Algorithm: holdfast.ES256, Residence: holdfast.Resident, Place: "0x81001001"}
	k, err := b.Generate(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if want := holdfast.Ref("tpm:handle=0x81001001;serial=" + b.Capabilities().Device.Serial); k.Ref() != want {
		t.Errorf("the ref is %s, want %s", k.Ref(), want)
	}
	generateCode := func(place string, want error) {
		t.Helper()
		s := spec
		s.Place = place
		if _, err := b.Generate(t.Context(), s); !errors.Is(err, want) {
			t.Errorf("generate at %q: %v", place, err)
		}
	}
	generateCode("0x81001001", holdfast.ErrExists)
	generateCode("0x81001002", holdfast.ErrInvalid)
	generateCode("0x80000000", holdfast.ErrInvalid)
	generateCode("81001000", holdfast.ErrInvalid)
	spec.Place = ""
	if _, err := b.Generate(t.Context(), spec); err != nil {
		t.Errorf("the last free handle: %v", err)
	}
	generateCode("", holdfast.ErrBusy)
	if _, _, err := b.Plan(t.Context(), spec); !errors.Is(err, holdfast.ErrBusy) {
		t.Errorf("plan when all is taken: %v", err)
	}
	if err := b.Destroy(t.Context(), k.Ref()); err != nil {
		t.Error(err)
	}
	if _, ref, err := b.Plan(t.Context(), spec); err != nil || ref != k.Ref() {
		t.Errorf("plan: %s, %v", ref, err)
	}
}

// TestPlansDiffer checks that two plans in a row do not get into each other's way.
func TestPlansDiffer(t *testing.T) {
	b := open(t, softhsmtest.TPMFor(t))
	spec := holdfast.KeySpec{Label: "plan", Algorithm: holdfast.ES256, Residence: holdfast.Resident}
	seen := map[holdfast.Ref]bool{}
	for range 3 {
		_, ref, err := b.Plan(t.Context(), spec)
		if err != nil || seen[ref] {
			t.Errorf("plan: %s again, %v", ref, err)
		}
		seen[ref] = true
	}
}

// TestFullTPM makes resident keys until there is no room.
func TestFullTPM(t *testing.T) {
	b := open(t, softhsmtest.TPMFor(t))
	spec := holdfast.KeySpec{Label: "full", Algorithm: holdfast.ES256, Residence: holdfast.Resident}
	for i := range 200 {
		k, err := b.Generate(t.Context(), spec)
		if err == nil {
			continue
		}
		if !errors.Is(err, holdfast.ErrBusy) || k != nil {
			t.Errorf("key %d on a full TPM: %v", i, err)
		}
		count := 0
		for _, err := range b.Keys(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			count++
		}
		if count != i {
			t.Errorf("%d keys were made, and %d are there", i, count)
		}
		generate(t, b, holdfast.ES256, holdfast.Wrapped) // for which there is room
		return
	}
	t.Error("200 resident keys did not fill the TPM")
}

// TestReplacedKey puts another key in the place of one that is in use.
func TestReplacedKey(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := open(t, device)
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	if err := device.Restart(t.Context()); err != nil { // the backend's connection ends
		t.Fatal(err)
	}
	t.Run("replace", func(t *testing.T) {
		conn := rawConn(t, device)
		remove(t, conn, 0x81008000)
		persist(t, conn, foreign(), "", 0x81008000)
	})
	if _, err := k.Sign(t.Context(), make([]byte, 32), nil); !errors.Is(err, holdfast.ErrNotFound) {
		t.Errorf("sign with a key that was replaced: %v", err)
	}
}

// TestStorageRootKeyMoves makes keys while another SRK, and then none, is persistent: all of them go on working.
func TestStorageRootKeyMoves(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	b := open(t, device)
	blobs := [][]byte{generate(t, b, holdfast.ES256, holdfast.Wrapped).(holdfast.WrappedKey).Blob()}
	use := func(when string) {
		t.Helper()
		for i, blob := range blobs {
			k, err := b.Load(t.Context(), blob)
			if err == nil {
				_, err = k.Sign(t.Context(), make([]byte, 32), nil)
			}
			if err != nil {
				t.Errorf("%s: key %d: %v", when, i, err)
			}
		}
	}
	unsuitable := tpm2.ECCSRKTemplate
	unsuitable.ObjectAttributes.NoDA = false
	for when, template := range map[string]tpm2.TPMTPublic{
		"an RSA SRK": tpm2.RSASRKTemplate, "another ECC SRK": tpm2.ECCSRKTemplate, "an unsuitable SRK": unsuitable,
	} {
		b = between(t, device, b, func(conn transport.TPM) { persist(t, conn, template, "", 0x81000001) })
		use(when)
		blobs = append(blobs, generate(t, b, holdfast.ES256, holdfast.Wrapped).(holdfast.WrappedKey).Blob())
		if _, err := generate(t, b, holdfast.ES256, holdfast.Resident).Sign(t.Context(), make([]byte, 32), nil); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		use(when)
		b = between(t, device, b, func(conn transport.TPM) { remove(t, conn, 0x81000001) })
		use("without " + when)
	}
}

// TestHierarchyAuth protects the hierarchies by passwords.
func TestHierarchyAuth(t *testing.T) {
	device := softhsmtest.TPMFor(t)
	t.Run("protect", func(t *testing.T) {
		conn := rawConn(t, device)
		for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHEndorsement} {
			if _, err := (tpm2.HierarchyChangeAuth{
				AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
				NewAuth:    tpm2.TPM2BAuth{Buffer: fmt.Appendf(nil, "password %x", hierarchy)},
			}).Execute(conn); err != nil {
				t.Fatal(err)
			}
		}
	})
	password := func(text string) func(context.Context) (holdfast.Secret, error) {
		return func(context.Context) (holdfast.Secret, error) { return holdfast.NewSecret([]byte(text)), nil }
	}
	cfg := tpm.Config{Device: "unix:" + device.SocketPath}
	for _, wrong := range []func(context.Context) (holdfast.Secret, error){nil, password("wrong")} {
		cfg.OwnerAuth = wrong
		if _, err := tpm.Open(t.Context(), cfg); !errors.Is(err, holdfast.ErrAuth) {
			t.Errorf("open without the owner's password: %v", err)
		}
	}
	failing := errors.New("the file is gone")
	cfg.OwnerAuth = func(context.Context) (holdfast.Secret, error) { return holdfast.Secret{}, failing }
	if _, err := tpm.Open(t.Context(), cfg); !errors.Is(err, failing) {
		t.Errorf("open when the password cannot be had: %v", err)
	}
	cfg.OwnerAuth = password("password 40000001")
	b, err := tpm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := generate(t, b, holdfast.ES256, holdfast.Resident)
	if _, err := k.(holdfast.Attester).Attest(t.Context(), make([]byte, 32)); !errors.Is(err, holdfast.ErrAuth) {
		t.Errorf("attest without the endorsement password: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.EndorsementAuth = password("password 4000000b")
	if b, err = tpm.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if k, err = b.Key(t.Context(), k.Ref()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.(holdfast.Attester).Attest(t.Context(), make([]byte, 32)); err != nil {
		t.Errorf("attest: %v", err)
	}
	if err := b.Destroy(t.Context(), k.Ref()); err != nil {
		t.Errorf("destroy: %v", err)
	}
}
