package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"holdfast"
	"holdfast/custody/evidence"
	"holdfast/internal/pubkey"
)

// Bounds on a bundle that a stranger sent.
const (
	maxBundleFiles = 32
	maxBundleFile  = 1 << 20
)

func (c *cli) evidenceCommand() *cobra.Command {
	return group("evidence", "Proof that keys live in devices", c.evidenceVerify(), c.evidenceChallenge(), c.evidenceTrust())
}

func (c *cli) evidenceVerify() *cobra.Command {
	var anchors []string
	var nonce, publicFile string
	var unanchored bool
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check evidence that a key was made in a device and cannot leave it",
		Long: "Checks a folder that `holdfast key attest` wrote, without a daemon. Whom you believe is yours to say: give the\n" +
			"TPM or token maker's root certificate, or the public key of a PKCS#11 attestation key you know, as\n" +
			"--trust-anchor. Evidence that ends in nothing you named is refused unless you say --unanchored; it then only\n" +
			"shows that nothing was changed since it was made.",
		Args: args1("the folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			options, err := c.evidenceOptions(anchors, nonce, publicFile)
			if err != nil {
				return err
			}
			files, err := readBundle(args[0])
			if err != nil {
				return err
			}
			report, err := evidence.Verify(files, options)
			if err != nil {
				return err
			}
			if err := c.printReport(report); err != nil {
				return err
			}
			if !report.Anchored && !unanchored {
				return holdfast.Errorf(holdfast.ErrDenied, "", "the evidence is intact, but it ends in nothing you named; "+
					"give --trust-anchor FILE (of a TPM: what holdfast evidence trust wrote), or accept that with --unanchored")
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&anchors, "trust-anchor", nil, "PEM file with root certificates, or with an attestation key's public half")
	cmd.Flags().StringVar(&nonce, "nonce", "", "the nonce the evidence must be made for, hexadecimal")
	cmd.Flags().StringVar(&publicFile, "public", "", "PEM file with the public key the evidence must be about")
	cmd.Flags().BoolVar(&unanchored, "unanchored", false, "accept evidence that ends in nothing you named")
	return cmd
}

func (c *cli) evidenceOptions(anchors []string, nonce, publicFile string) (*evidence.Options, error) {
	options := &evidence.Options{}
	var err error
	if options.Nonce, err = hex.DecodeString(nonce); err != nil {
		return nil, usagef("--nonce is not hexadecimal")
	}
	if publicFile != "" {
		text, err := c.readInput(publicFile)
		if err != nil {
			return nil, err
		}
		if options.ExpectPublic, err = pubkey.ParsePEM(text); err != nil {
			return nil, err
		}
	}
	for _, file := range anchors {
		text, err := c.readInput(file)
		if err != nil {
			return nil, err
		}
		if err := addAnchors(options, file, text); err != nil {
			return nil, err
		}
	}
	return options, nil
}

func addAnchors(options *evidence.Options, file string, text []byte) error {
	found := false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return holdfast.Errorf(holdfast.ErrInvalid, "", "%s: %w", file, err)
			}
			if options.Roots == nil {
				options.Roots = x509.NewCertPool()
			}
			options.Roots.AddCert(cert)
		case "PUBLIC KEY":
			options.TrustedAttestors = append(options.TrustedAttestors, block.Bytes)
		default:
			return holdfast.Errorf(holdfast.ErrInvalid, "", "%s holds a PEM block %q; certificates and public keys can be trusted", file, block.Type)
		}
		found = true
	}
	if !found {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "%s holds no PEM", file)
	}
	return nil
}

// readBundle reads a folder's files; what is not a plain file is refused.
func readBundle(dir string) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxBundleFiles {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "%s holds %d files; evidence has a handful", dir, len(entries))
	}
	files := make(map[string][]byte, len(entries))
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "%s is no plain file", filepath.Join(dir, entry.Name()))
		}
		data, err := readBundleFile(root, entry.Name())
		if err != nil {
			return nil, err
		}
		files[entry.Name()] = data
	}
	return files, nil
}

func readBundleFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBundleFile+1))
	if err == nil && len(data) > maxBundleFile {
		err = holdfast.Errorf(holdfast.ErrInvalid, "", "%s is longer than %d bytes", name, maxBundleFile)
	}
	return data, err
}

func (c *cli) printReport(r evidence.Report) error {
	multikey := ""
	if r.Public != nil {
		multikey, _ = pubkey.MarshalMultikey(r.Public) // stays empty for a type without one
	}
	if c.json {
		return c.printAny(map[string]any{
			"name": r.Name, "algorithm": r.Algorithm, "purpose": r.Purpose, "kind": r.Kind,
			"public": multikey, "anchored": r.Anchored, "checks": r.Lines, "warnings": r.Warnings,
		})
	}
	if err := c.fields("key", r.Name, "algorithm", string(r.Algorithm), "purpose", r.Purpose, "public", multikey, "evidence", r.Kind); err != nil {
		return err
	}
	for _, line := range r.Lines {
		if err := c.println("  ✓ " + visible(line)); err != nil {
			return err
		}
	}
	for _, line := range r.Warnings {
		if err := c.println("  ! " + visible(line)); err != nil {
			return err
		}
	}
	if r.Anchored {
		return c.println("The proof ends in a trust anchor you named.")
	}
	return nil
}
