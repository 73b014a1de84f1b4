package tpm_test

import (
	"crypto/sha256"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"holdfast"
	softhsmtest "holdfast/softhsm-test"
)

// BenchmarkSign compares a signature through the backend with the same command through go-tpm alone, on a persistent
// connection with a password session and a loaded key, which is what the backend could reach at best.
func BenchmarkSign(b *testing.B) {
	digest := sha256.Sum256([]byte("benchmark"))
	b.Run("raw", func(b *testing.B) {
		conn, key := rawKey(b, softhsmtest.TPMFor(b))
		for b.Loop() {
			if err := rawSign(conn, key, digest[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, residence := range []holdfast.Residence{holdfast.Wrapped, holdfast.Resident} {
		b.Run(residence.String(), func(b *testing.B) {
			backend := open(b, softhsmtest.TPMFor(b))
			k := generate(b, backend, holdfast.ES256, residence)
			for b.Loop() {
				if _, err := k.Sign(b.Context(), digest[:], nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("wrapped/8-keys", func(b *testing.B) { // each signature loads its key
		backend := open(b, softhsmtest.TPMFor(b))
		var keys []holdfast.Key
		for range 8 {
			keys = append(keys, generate(b, backend, holdfast.ES256, holdfast.Wrapped))
		}
		for i := 0; b.Loop(); i++ {
			if _, err := keys[i%len(keys)].Sign(b.Context(), digest[:], nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("wrapped/64-callers", func(b *testing.B) {
		backend := open(b, softhsmtest.TPMFor(b))
		k := generate(b, backend, holdfast.ES256, holdfast.Wrapped)
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := k.Sign(b.Context(), digest[:], nil); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkSignRatio alternates between both, so that what else the machine does weighs on both alike, and reports the
// median time of a raw signature divided by that of one through the backend.
func BenchmarkSignRatio(b *testing.B) {
	digest := sha256.Sum256([]byte("benchmark"))
	conn, key := rawKey(b, softhsmtest.TPMFor(b))
	k := generate(b, open(b, softhsmtest.TPMFor(b)), holdfast.ES256, holdfast.Wrapped)
	var raw, ours []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := rawSign(conn, key, digest[:]); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if _, err := k.Sign(b.Context(), digest[:], nil); err != nil {
			b.Fatal(err)
		}
		raw, ours = append(raw, middle.Sub(start)), append(ours, time.Since(middle))
	}
	slices.Sort(raw)
	slices.Sort(ours)
	b.ReportMetric(float64(raw[len(raw)/2])/float64(ours[len(ours)/2]), "ratio")
	b.ReportMetric(float64(raw[len(raw)/2].Microseconds()), "raw-µs")
	b.ReportMetric(float64(ours[len(ours)/2].Microseconds()), "backend-µs")
}

// BenchmarkGenerate measures a wrapped key, its test signature included.
func BenchmarkGenerate(b *testing.B) {
	backend := open(b, softhsmtest.TPMFor(b))
	for b.Loop() {
		generate(b, backend, holdfast.ES256, holdfast.Wrapped)
	}
}

func generate(t testing.TB, b holdfast.Backend, a holdfast.Algorithm, r holdfast.Residence) holdfast.Key {
	t.Helper()
	k, err := b.Generate(t.Context(), holdfast.KeySpec{Label: "test", Algorithm: a, Residence: r})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rawConn connects to a TPM without the backend.
func rawConn(t testing.TB, device *softhsmtest.TPM) transport.TPM {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", device.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return transport.FromReadWriteCloser(conn)
}

// rawKey makes and loads a P-256 signing key.
func rawKey(t testing.TB, device *softhsmtest.TPM) (transport.TPM, tpm2.NamedHandle) {
	t.Helper()
	conn := rawConn(t, device)
	key, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgECC,
			NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Scheme: tpm2.TPMTECCScheme{
					Scheme:  tpm2.TPMAlgECDSA,
					Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
				},
				CurveID: tpm2.TPMECCNistP256,
			}),
		}),
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}
}

func rawSign(conn transport.TPM, key tpm2.NamedHandle, digest []byte) error {
	_, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: key.Handle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
	}.Execute(conn)
	return err
}
