package softkey

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"holdfast"
)

// wrappedKey is a key with a blob.
type wrappedKey struct{ *key }

// Blob returns the encrypted key.
func (w wrappedKey) Blob() []byte { return w.blob }

func gcm(secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic("a key of the wrong length: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("AES has no GCM: " + err.Error())
	}
	return aead
}

func sealGCM(secret, plaintext, additionalData []byte) []byte {
	return gcm(secret).Seal(nil, nil, plaintext, additionalData)
}

func openGCM(secret, ciphertext, additionalData []byte) ([]byte, error) {
	plaintext, err := gcm(secret).Open(nil, nil, ciphertext, additionalData)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "decrypt", "%w", err)
	}
	return plaintext, nil
}

func (b *Backend) generateWrapped(ctx context.Context, spec holdfast.KeySpec) (holdfast.Key, error) {
	if err := b.enter(ctx, "generate"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	m, err := newMaterial(spec)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	blob := sealGCM(b.device.Root, text, []byte("key"))
	return b.key(wrappedRef(blob), m, blob)
}

func wrappedRef(blob []byte) holdfast.Ref {
	sum := sha256.Sum256(blob)
	return holdfast.Ref("soft:wrapped-" + hex.EncodeToString(sum[:16]))
}

// Load opens a blob.
func (b *Backend) Load(ctx context.Context, blob []byte) (holdfast.Key, error) {
	if err := b.enter(ctx, "load"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	text, err := openGCM(b.device.Root, blob, []byte("key"))
	if err != nil {
		return nil, err
	}
	var m material
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, holdfast.Errorf(holdfast.ErrIntegrity, "load", "%w", err)
	}
	return b.key(wrappedRef(blob), m, blob)
}

// Seal encrypts secret; conditions are part of what is authenticated.
func (b *Backend) Seal(ctx context.Context, secret holdfast.Secret, options *holdfast.SealOptions) ([]byte, error) {
	if secret.Len() == 0 {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "seal", "there is nothing to seal")
	}
	if options != nil && len(options.PCRs) > 0 {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "seal", "a process has no PCRs")
	}
	if err := b.enter(ctx, "seal"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var auth []byte
	if options != nil {
		auth = options.AuthValue.Bytes()
	}
	return sealGCM(b.device.Root, secret.Bytes(), append([]byte("sealed"), auth...)), nil
}

// Unseal returns the secret.
func (b *Backend) Unseal(ctx context.Context, blob []byte, options *holdfast.UnsealOptions) (holdfast.Secret, error) {
	if err := b.enter(ctx, "unseal"); err != nil {
		return holdfast.Secret{}, err
	}
	defer b.mu.Unlock()
	var auth []byte
	if options != nil {
		auth = options.AuthValue.Bytes()
	}
	secret, err := openGCM(b.device.Root, blob, append([]byte("sealed"), auth...))
	return holdfast.NewSecret(secret), err
}
