package custody

import (
	"context"
	"crypto/ecdh"
	"runtime"
	"sync"
	"sync/atomic"

	"holdfast"

	"go.uber.org/zap"
)

// Sign signs digest with the key called name; for EdDSA, digest is the whole message. The signature is in the form
// [holdfast.Key.Sign] says. On a backend that is to be verified, a signature that does not verify under the key's public
// half is not released: ErrIntegrity.
func (s *Service) Sign(ctx context.Context, name string, digest []byte) ([]byte, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	e, err := s.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer e.gate.leave()
	return s.sign(ctx, e, digest)
}

func (s *Service) sign(ctx context.Context, e *entry, digest []byte) ([]byte, error) {
	if err := e.key.Algorithm.CheckInput(digest, nil); err != nil {
		return nil, err
	}
	k, err := e.get(ctx)
	if err != nil {
		return nil, err
	}
	signature, err := k.Sign(ctx, digest, nil)
	if e.backend.observe(err) != nil {
		return nil, e.lost(err)
	}
	if e.backend.cfg.VerifyAfterSign {
		if err := holdfast.Verify(e.key.Algorithm, e.key.Public, digest, signature); err != nil {
			s.log.Error("signature does not verify and was not released", zap.String("op", "sign"),
				zap.String("key_ref", string(e.key.Ref)),
				zap.String("backend", e.key.Backend), codeField(err))
			return nil, &holdfast.Error{Op: "sign", Ref: e.key.Ref, Code: holdfast.ErrIntegrity,
				Retries: holdfast.RetriesUnknown, Err: err}
		}
	}
	return signature, nil
}

// SignBatch signs up to MaxBatch digests with one key, several at a time. The results are in the order of the digests;
// the error is of the whole batch: then nothing was signed.
func (s *Service) SignBatch(ctx context.Context, name string, digests [][]byte) ([]SignResult, error) {
	if len(digests) == 0 || len(digests) > MaxBatch {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "a batch has 1 to %d digests, not %d", MaxBatch,
			len(digests))
	}
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	e, err := s.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer e.gate.leave()
	if e.key.Algorithm.Use() != holdfast.UseSign {
		return nil, e.key.Algorithm.CheckInput(nil, nil)
	}
	if _, err := e.get(ctx); err != nil {
		return nil, err
	}
	results := make([]SignResult, len(digests))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(digests), batchWorkers()) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(digests); i = int(next.Add(1)) - 1 {
				results[i].Signature, results[i].Err = s.sign(ctx, e, digests[i])
			}
		})
	}
	wg.Wait()
	return results, nil
}

// batchWorkers is how many digests of a batch are signed at a time: enough to keep a device with a few sessions busy,
// few enough to leave room for other callers.
func batchWorkers() int { return 2 * runtime.GOMAXPROCS(0) }

// Agree returns the shared secret of the key called name and peer (ECDH): the x-coordinate, or for X25519 the u-coordinate.
func (s *Service) Agree(ctx context.Context, name string, peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "an agreement needs the other side's public key")
	}
	var secret []byte
	err := s.use(ctx, name, holdfast.UseAgree, func(e *entry, k holdfast.Key) error {
		if own, ok := e.key.Public.(*ecdh.PublicKey); !ok || own.Curve() != peer.Curve() {
			return holdfast.Errorf(holdfast.ErrInvalid, "",
				"the other side's public key is on %s; %s keys agree with their own curve only", peer.Curve(), e.key.Algorithm)
		}
		agreer, ok := holdfast.As[holdfast.Agreer](k)
		if !ok {
			return errMissing(e, "agreement")
		}
		exchanger, err := agreer.Agreement(ctx)
		if err == nil {
			secret, err = exchanger.ECDH(peer)
		}
		return err
	})
	return secret, err
}

// Encrypt encrypts up to [holdfast.MaxMessage] bytes as [holdfast.Encrypter] says.
func (s *Service) Encrypt(ctx context.Context, name string, plaintext, additionalData []byte) ([]byte, error) {
	if len(plaintext) > holdfast.MaxMessage {
		return nil, errTooLong()
	}
	return s.encryption(ctx, name, plaintext, additionalData, holdfast.Encrypter.Encrypt)
}

// Decrypt decrypts what Encrypt returned.
func (s *Service) Decrypt(ctx context.Context, name string, ciphertext, additionalData []byte) ([]byte, error) {
	if len(ciphertext) > holdfast.MaxMessage+gcmOverhead {
		return nil, errTooLong()
	}
	return s.encryption(ctx, name, ciphertext, additionalData, holdfast.Encrypter.Decrypt)
}

// gcmOverhead is what Encrypt adds: nonce and tag.
const gcmOverhead = 12 + 16

func errTooLong() error {
	return holdfast.Errorf(holdfast.ErrInvalid, "", "at most %d bytes can be encrypted at once", holdfast.MaxMessage)
}

func (s *Service) encryption(ctx context.Context, name string, in, additionalData []byte,
	do func(holdfast.Encrypter, context.Context, []byte, []byte) ([]byte, error)) ([]byte, error) {
	if len(additionalData) > holdfast.MaxMessage {
		return nil, errTooLong()
	}
	var out []byte
	err := s.use(ctx, name, holdfast.UseEncrypt, func(e *entry, k holdfast.Key) error {
		encrypter, ok := holdfast.As[holdfast.Encrypter](k)
		if !ok {
			return errMissing(e, "encryption")
		}
		var err error
		out, err = do(encrypter, ctx, in, additionalData)
		return err
	})
	return out, err
}

// use does something with the key called name, whose algorithm has to have that use.
func (s *Service) use(ctx context.Context, name string, u holdfast.Use, do func(*entry, holdfast.Key) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.leave()
	e, err := s.hold(ctx, name)
	if err != nil {
		return err
	}
	defer e.gate.leave()
	if u != holdfast.UseNone && e.key.Algorithm.Use() != u {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "the key %q (%s) is made to %s, not to %s", name,
			e.key.Algorithm, e.key.Algorithm.Use(), u)
	}
	k, err := e.get(ctx)
	if err != nil {
		return err
	}
	if err := e.backend.observe(do(e, k)); err != nil {
		return e.lost(err)
	}
	return nil
}

func errMissing(e *entry, what string) error {
	return holdfast.Errorf(holdfast.ErrUnsupported, "", "backend %s offers no %s with the key %q", e.key.Backend, what,
		e.key.Name)
}

// Seal binds a secret to the device of a backend, see [holdfast.Sealer].
func (s *Service) Seal(
	ctx context.Context, backend string, secret holdfast.Secret, o *holdfast.SealOptions,
) ([]byte, error) {
	var blob []byte
	err := s.seal(ctx, backend, func(sealer holdfast.Sealer) (err error) {
		blob, err = sealer.Seal(ctx, secret, o)
		return err
	})
	return blob, err
}

// Unseal returns what Seal bound to the device.
func (s *Service) Unseal(
	ctx context.Context, backend string, blob []byte, o *holdfast.UnsealOptions,
) (holdfast.Secret, error) {
	var secret holdfast.Secret
	err := s.seal(ctx, backend, func(sealer holdfast.Sealer) (err error) {
		secret, err = sealer.Unseal(ctx, blob, o)
		return err
	})
	return secret, err
}

func (s *Service) seal(ctx context.Context, name string, do func(holdfast.Sealer) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.leave()
	b, err := s.backend(name)
	if err != nil {
		return err
	}
	d, err := b.get(ctx)
	if err != nil {
		return err
	}
	sealer, ok := holdfast.As[holdfast.Sealer](d.Backend)
	if !ok {
		return holdfast.Errorf(holdfast.ErrUnsupported, "", "backend %s (%s) seals nothing; a TPM does", name,
			d.Capabilities().Kind)
	}
	return b.observe(do(sealer))
}
