package main

import (
	"context"
	"crypto"

	"github.com/spf13/cobra"

	"holdfast"
	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
	"holdfast/internal/pubkey"
)

func (c *cli) keySign() *cobra.Command {
	var input, output, encoding string
	cmd := &cobra.Command{
		Use:   "sign NAME --input FILE --output FILE",
		Short: "Sign a file",
		Long: "Signs a message. It is hashed here with the key's hash; only the digest goes to the daemon (EdDSA keys sign\n" +
			"the message itself, at most 1 MiB).",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			if err := checkEncoding(encoding); err != nil {
				return err
			}
			message, err := c.readInput(input)
			if err != nil {
				return err
			}
			k, err := daemon.GetKey(ctx, &pb.GetKeyRequest{Name: args[0]})
			if err != nil {
				return err
			}
			algorithm := holdfast.Algorithm(k.GetAlgorithm())
			resp, err := daemon.Sign(ctx, &pb.SignRequest{Name: args[0], Digest: algorithm.Digest(message)})
			if err != nil {
				return err
			}
			signature := resp.GetSignature()
			if encoding == "raw" {
				if signature, err = pubkey.RawSignature(algorithm, signature); err != nil {
					return err
				}
			}
			return c.writeOutput(output, signature, 0o644)
		}),
	}
	inputOutput(cmd, &input, &output, "the message", "the signature")
	addEncoding(cmd, &encoding)
	return cmd
}

func addEncoding(cmd *cobra.Command, encoding *string) {
	cmd.Flags().StringVar(encoding, "encoding", "der",
		"of ECDSA signatures: der (OpenSSL, X.509) or raw (r||s: JOSE, DID proofs)")
	_ = cmd.RegisterFlagCompletionFunc("encoding",
		cobra.FixedCompletions([]string{"der", "raw"}, cobra.ShellCompDirectiveNoFileComp))
}

func checkEncoding(encoding string) error {
	if encoding != "der" && encoding != "raw" {
		return usagef("--encoding is %q: choose der or raw", encoding)
	}
	return nil
}

func (c *cli) keyVerify() *cobra.Command {
	var input, signatureFile, encoding, publicFile, algorithm string
	cmd := &cobra.Command{
		Use:   "verify [NAME] --input FILE --signature FILE",
		Short: "Verify a signature",
		Long: "Verifies a signature under a key in custody, or with --public and --algorithm under a public key in a PEM file,\n" +
			"without a daemon. The exit code is 0 only for a valid signature.",
		ValidArgsFunction: c.completeKeys,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (publicFile != "") || (publicFile != "") != (algorithm != "") {
				return usagef("give a key's name, or --public and --algorithm")
			}
			return checkEncoding(encoding)
		},
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			a, public, err := c.verifier(ctx, daemon, args, publicFile, algorithm)
			if err != nil {
				return err
			}
			message, err := c.readInput(input)
			if err != nil {
				return err
			}
			signature, err := c.readInput(signatureFile)
			if err != nil {
				return err
			}
			if encoding == "raw" {
				if signature, err = pubkey.DERSignature(a, signature); err != nil {
					return err
				}
			}
			if err := holdfast.Verify(a, public, a.Digest(message), signature); err != nil {
				return err
			}
			if c.json {
				return c.printAny(map[string]any{"valid": true, "algorithm": a})
			}
			return c.printf("valid %s signature\n", a)
		}),
	}
	cmd.Flags().StringVar(&input, "input", "", "file with the message, - for standard input")
	cmd.Flags().StringVar(&signatureFile, "signature", "", "file with the signature")
	cmd.Flags().StringVar(&publicFile, "public", "", "file with a public key in PEM")
	cmd.Flags().StringVar(&algorithm, "algorithm", "", "the public key's algorithm")
	addEncoding(cmd, &encoding)
	c.required(cmd, "input", "signature")
	return cmd
}

// verifier returns the algorithm and public key to verify with.
func (c *cli) verifier(
	ctx context.Context, daemon *client.Client, args []string, file, algorithm string,
) (holdfast.Algorithm, crypto.PublicKey, error) {
	if file != "" {
		a, err := holdfast.ParseAlgorithm(algorithm)
		if err != nil {
			return "", nil, err
		}
		text, err := c.readInput(file)
		if err != nil {
			return "", nil, err
		}
		public, err := pubkey.ParsePEM(text)
		return a, public, err
	}
	k, err := daemon.GetKey(ctx, &pb.GetKeyRequest{Name: args[0]})
	if err != nil {
		return "", nil, err
	}
	a := holdfast.Algorithm(k.GetAlgorithm())
	if a.Use() != holdfast.UseSign {
		return "", nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "%s keys do not sign", a)
	}
	public, err := pubkey.ParseSPKI(k.GetPublicKey())
	return a, public, err
}

func (c *cli) keyEncrypt() *cobra.Command {
	var aad string
	cmd := &cobra.Command{
		Use:               "encrypt NAME --input FILE --output FILE",
		Short:             "Encrypt a file with a secret key (AES-256-GCM in the device)",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
	}
	cmd.Flags().StringVar(&aad, "additional-data", "", "text that is authenticated with the ciphertext")
	return c.filter(cmd, "the plaintext", "nonce, ciphertext and tag", 0o644,
		func(ctx context.Context, daemon *client.Client, name string, data []byte) ([]byte, error) {
			defer clear(data)
			resp, err := daemon.Encrypt(ctx, &pb.EncryptRequest{Name: name, Plaintext: data, AdditionalData: []byte(aad)})
			return resp.GetCiphertext(), err
		})
}

func (c *cli) keyDecrypt() *cobra.Command {
	var aad string
	cmd := &cobra.Command{
		Use:               "decrypt NAME --input FILE --output FILE",
		Short:             "Decrypt what key encrypt wrote",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
	}
	cmd.Flags().StringVar(&aad, "additional-data", "", "the text given when encrypting")
	return c.filter(cmd, "nonce, ciphertext and tag", "the plaintext", 0o600,
		func(ctx context.Context, daemon *client.Client, name string, data []byte) ([]byte, error) {
			resp, err := daemon.Decrypt(ctx, &pb.DecryptRequest{Name: name, Ciphertext: data, AdditionalData: []byte(aad)})
			return resp.GetPlaintext(), err
		})
}
