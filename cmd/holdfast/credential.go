package main

import (
	"github.com/spf13/cobra"

	"holdfast/custody/evidence"
	"holdfast/internal/pubkey"
)

func (c *cli) evidenceChallenge() *cobra.Command {
	var output, keep string
	cmd := &cobra.Command{
		Use:   "challenge DIR --output FILE --keep FILE",
		Short: "Ask a TPM, once, whether its attestation key is its own",
		Long: "The evidence of a TPM is signed by an attestation key; a certificate of the TPM's maker is about another, the\n" +
			"endorsement key. That both are in one TPM takes one question and answer:\n\n" +
			"  you        holdfast evidence challenge DIR --output question --keep secret\n" +
			"  its owner  holdfast backend activate tpm --input question --output answer\n" +
			"  you        holdfast evidence trust DIR --keep secret --answer answer --trust-anchor maker.pem --output ak.pem\n\n" +
			"From then on ak.pem is a trust anchor for all evidence of this TPM. Do not give the --keep file away.",
		Args: args1("the folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := readBundle(args[0])
			if err != nil {
				return err
			}
			credential, kept, err := evidence.NewCredential(files)
			if err != nil {
				return err
			}
			if err := c.writeOutput(keep, kept, 0o600); err != nil {
				return err
			}
			return c.writeOutput(output, credential, 0o644)
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "file for the question, for the TPM's owner")
	cmd.Flags().StringVar(&keep, "keep", "", "file that stays with you")
	c.required(cmd, "output", "keep")
	return cmd
}

func (c *cli) evidenceTrust() *cobra.Command {
	var output, keep, answer string
	var anchors []string
	cmd := &cobra.Command{
		Use:   "trust DIR --keep FILE --answer FILE --trust-anchor FILE --output FILE",
		Short: "Judge a TPM's answer and write its attestation key as a trust anchor",
		Long:  "See `holdfast evidence challenge --help`.",
		Args:  args1("the folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			options, err := c.evidenceOptions(anchors, "", "")
			if err != nil {
				return err
			}
			files, err := readBundle(args[0])
			if err != nil {
				return err
			}
			kept, err := c.readInput(keep)
			if err != nil {
				return err
			}
			given, err := c.readInput(answer)
			if err != nil {
				return err
			}
			ak, err := evidence.CheckAnswer(files, kept, given, options.Roots)
			if err != nil {
				return err
			}
			text, err := pubkey.MarshalPEM(ak)
			if err != nil {
				return err
			}
			if err := c.writeOutput(output, text, 0o644); err != nil {
				return err
			}
			if c.json {
				return c.printAny(map[string]any{"trusted": true, "attestor": output})
			}
			return c.printf("the attestation key is in the TPM that its maker certified; it is in %s\n", output)
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "what evidence challenge kept for you")
	cmd.Flags().StringVar(&answer, "answer", "", "what the TPM's owner sent back")
	cmd.Flags().StringArrayVar(&anchors, "trust-anchor", nil, "PEM file with the TPM maker's root certificates")
	cmd.Flags().StringVar(&output, "output", "", "file for the attestation key, PEM")
	c.required(cmd, "keep", "answer", "trust-anchor", "output")
	return cmd
}
