package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"holdfast"
	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
)

func (c *cli) backendCommand() *cobra.Command {
	return group("backend", "The devices", c.backendList(), c.backendShow(), c.backendProbe(), c.backendUnlock(),
		c.backendSeal(), c.backendUnseal(), c.backendActivate())
}

func (c *cli) backendList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the devices, those that cannot be reached included",
		Args:  noArgs,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, _ []string) error {
			resp, err := daemon.ListBackends(ctx, &pb.ListBackendsRequest{})
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(resp)
			}
			return c.printBackends(resp.GetBackends())
		}),
	}
}

func (c *cli) printBackends(backends []*pb.Backend) error {
	rows := [][]string{{"BACKEND", "KIND", "STATE", "KEYS", "DEVICE"}}
	var notes []string
	for _, b := range backends {
		state := "ok"
		if !b.GetAvailable() {
			state = "unavailable"
		} else if b.GetPin().GetRefused() {
			state = "PIN refused"
		}
		if b.GetReason() != "" {
			notes = append(notes, b.GetName()+": "+b.GetReason())
		}
		for _, concern := range b.GetConcerns() {
			notes = append(notes, b.GetName()+": "+concern)
		}
		rows = append(rows, []string{b.GetName(), b.GetKind(), state, fmt.Sprint(b.GetKeyCount()), deviceName(b.GetDevice())})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if len(notes) > 0 {
		return c.println("\n" + visibleLines(strings.Join(notes, "\n")))
	}
	return nil
}

func deviceName(d *pb.Device) string {
	name := strings.TrimSpace(d.GetManufacturer() + " " + d.GetModel())
	if d.GetLabel() != "" {
		name += fmt.Sprintf(" %q", d.GetLabel())
	}
	if d.GetSerial() != "" {
		name += ", serial " + d.GetSerial()
	}
	return name
}

func (c *cli) backendShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show what a device can do",
		Args:              args1("the backend's name"),
		ValidArgsFunction: c.completeBackends,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			resp, err := daemon.ListBackends(ctx, &pb.ListBackendsRequest{})
			if err != nil {
				return err
			}
			for _, b := range resp.GetBackends() {
				if b.GetName() == args[0] {
					return c.printBackend(b)
				}
			}
			return holdfast.Errorf(holdfast.ErrNotFound, "", "there is no backend called %q", args[0])
		}),
	}
}

func (c *cli) backendProbe() *cobra.Command {
	return &cobra.Command{
		Use:               "probe NAME",
		Short:             "Ask a device whether it is there, and reconnect it",
		Args:              args1("the backend's name"),
		ValidArgsFunction: c.completeBackends,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			b, err := daemon.ProbeBackend(ctx, &pb.ProbeBackendRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if err := c.printBackend(b); err != nil {
				return err
			}
			if !b.GetAvailable() {
				return holdfast.Errorf(holdfast.ErrUnavailable, "", "%s: %s", b.GetName(), b.GetReason())
			}
			return nil
		}),
	}
}

func (c *cli) printBackend(b *pb.Backend) error {
	if c.json {
		return c.printJSON(b)
	}
	state := "ok"
	if !b.GetAvailable() {
		state = "unavailable: " + b.GetReason()
	}
	var resident, wrapped []string
	for _, s := range b.GetAlgorithms() {
		if s.GetResident() {
			resident = append(resident, s.GetAlgorithm())
		}
		if s.GetWrapped() {
			wrapped = append(wrapped, s.GetAlgorithm())
		}
	}
	defaultIs := "resident"
	if b.GetWrappedByDefault() {
		defaultIs = "wrapped"
	}
	return c.fields(
		"backend", b.GetName(),
		"kind", b.GetKind(),
		"state", state,
		"device", deviceName(b.GetDevice()),
		"firmware", b.GetDevice().GetFirmware(),
		"PIN", pinText(b.GetPin()),
		"keys", fmt.Sprint(b.GetKeyCount()),
		"resident keys", strings.Join(resident, " "),
		"wrapped keys", strings.Join(wrapped, " "),
		"default", defaultIs,
		"places", strings.Join(b.GetPlaces(), " "),
		"verify after sign", fmt.Sprint(b.GetVerifyAfterSign()),
		"distrust", b.GetDistrust(),
		"concerns", strings.Join(b.GetConcerns(), "; "),
	)
}

func pinText(p *pb.Pin) string {
	if p == nil {
		return ""
	}
	text := "accepted"
	if p.GetRefused() {
		text = "refused; waiting for `holdfast backend unlock`"
	}
	if p.Retries != nil {
		text += fmt.Sprintf(", %d tries left", p.GetRetries())
	}
	if p.GetNote() != "" {
		text += ", " + p.GetNote()
	}
	return text
}

func (c *cli) backendUnlock() *cobra.Command {
	var pinFile string
	var prompt bool
	cmd := &cobra.Command{
		Use:   "unlock NAME",
		Short: "Let the daemon try a PIN again after one was refused",
		Long: "After a device refused a PIN the daemon tries none until a person runs this command. Without options it\n" +
			"reads the configured source of the PIN again; --prompt asks for the PIN here; --pin-file reads it from a file.\n" +
			"The PIN is tried once.",
		Args:              args1("the backend's name"),
		ValidArgsFunction: c.completeBackends,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			if prompt && pinFile != "" {
				return usagef("--prompt and --pin-file exclude each other")
			}
			pin, err := c.readPIN(args[0], pinFile, prompt)
			if err != nil {
				return err
			}
			defer pin.Wipe()
			b, err := daemon.UnlockBackend(ctx, &pb.UnlockBackendRequest{Name: args[0], Pin: pin.Bytes()})
			if err != nil {
				return err
			}
			return c.printBackend(b)
		}),
	}
	cmd.Flags().StringVar(&pinFile, "pin-file", "", "file with the PIN, - for standard input")
	cmd.Flags().BoolVar(&prompt, "prompt", false, "ask for the PIN on the terminal")
	return cmd
}

func (c *cli) readPIN(backend, file string, prompt bool) (holdfast.Secret, error) {
	switch {
	case prompt:
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return holdfast.Secret{}, usagef("there is no terminal to ask on: use --pin-file")
		}
		defer tty.Close()
		fmt.Fprintf(c.err, "PIN of %s: ", backend)
		pin, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(c.err)
		return holdfast.NewSecret(pin), err
	case file != "":
		text, err := c.readInput(file)
		for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
			text = text[:len(text)-1]
		}
		if err == nil && len(text) == 0 {
			err = usagef("%s holds no PIN", file)
		}
		return holdfast.NewSecret(text), err
	default:
		return holdfast.Secret{}, nil
	}
}

func (c *cli) backendSeal() *cobra.Command {
	var pcrs []int32
	cmd := &cobra.Command{
		Use:   "seal NAME --input FILE --output FILE",
		Short: "Bind a secret to a TPM",
		Long: "Reads a secret (at most 1 MiB) and writes a blob from which only this TPM gives it back, and with --pcr only\n" +
			"while those platform configuration registers have the values they have now.",
		Args:              args1("the backend's name"),
		ValidArgsFunction: c.completeBackends,
	}
	cmd.Flags().Int32SliceVar(&pcrs, "pcr", nil, "platform configuration registers (SHA-256 bank)")
	return c.filter(cmd, "the secret", "the sealed blob", 0o600,
		func(ctx context.Context, daemon *client.Client, name string, data []byte) ([]byte, error) {
			defer clear(data)
			resp, err := daemon.Seal(ctx, &pb.SealRequest{Backend: name, Secret: data, Pcrs: pcrs})
			return resp.GetBlob(), err
		})
}

func (c *cli) backendUnseal() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "unseal NAME --input FILE --output FILE",
		Short:             "Get a sealed secret back",
		Args:              args1("the backend's name"),
		ValidArgsFunction: c.completeBackends,
	}
	return c.filter(cmd, "the sealed blob", "the secret", 0o600,
		func(ctx context.Context, daemon *client.Client, name string, data []byte) ([]byte, error) {
			resp, err := daemon.Unseal(ctx, &pb.UnsealRequest{Backend: name, Blob: data})
			return resp.GetSecret(), err
		})
}

func (c *cli) backendActivate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "activate NAME --input FILE --output FILE",
		Short: "Answer a verifier's question to a TPM (TPM2_ActivateCredential)",
		Long: "Reads what a verifier made with `holdfast evidence challenge` or tpm2_makecredential, and writes the answer that\n" +
			"only the TPM with that endorsement key and that attestation key can give.",
		Args:              args1("the backend's name"),
		ValidArgsFunction: c.completeBackends,
	}
	return c.filter(cmd, "the verifier's credential", "the answer", 0o644,
		func(ctx context.Context, daemon *client.Client, name string, data []byte) ([]byte, error) {
			resp, err := daemon.ActivateCredential(ctx, &pb.ActivateCredentialRequest{Name: name, Credential: data})
			return resp.GetAnswer(), err
		})
}

// filter completes a command that has the daemon turn one file into another. The result is wiped once it is written.
func (c *cli) filter(cmd *cobra.Command, in, out string, mode os.FileMode,
	do func(ctx context.Context, daemon *client.Client, name string, data []byte) ([]byte, error)) *cobra.Command {
	var input, output string
	inputOutput(cmd, &input, &output, in, out)
	cmd.RunE = c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
		data, err := c.readInput(input)
		if err != nil {
			return err
		}
		result, err := do(ctx, daemon, args[0], data)
		if err != nil {
			return err
		}
		defer clear(result)
		return c.writeOutput(output, result, mode)
	})
	return cmd
}

// inputOutput adds the two flags of commands that turn one file into another.
func inputOutput(cmd *cobra.Command, input, output *string, in, out string) {
	cmd.Flags().StringVar(input, "input", "", "file with "+in+", - for standard input")
	cmd.Flags().StringVar(output, "output", "", "file for "+out+", - for standard output")
	_ = cmd.MarkFlagRequired("input") // the flags are there
	_ = cmd.MarkFlagRequired("output")
}
