package main

import (
	"context"
	"crypto"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast"
	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
	"holdfast/custody"
	"holdfast/internal/pubkey"
)

func (c *cli) keyCommand() *cobra.Command {
	return group("key", "Keys", c.keyCreate(), c.keyAdopt(), c.keyList(), c.keyShow(), c.keyPublic(), c.keySign(), c.keyVerify(),
		c.keyEncrypt(), c.keyDecrypt(), c.keyAttest(), c.keyDestroy())
}

func (c *cli) keyCreate() *cobra.Command {
	var r pb.CreateKeyRequest
	var wrapped, resident bool
	var pin, touch string
	cmd := &cobra.Command{
		Use:   "create NAME --backend B --algorithm ALG --purpose P",
		Short: "Make a key inside a device",
		Long: "Makes a key inside a device, from which it cannot be exported.\n\n" +
			"Algorithms: " + joined(holdfast.Algorithms()) + "\n\nPurposes:\n" + purposeHelp(),
		Example: "  holdfast key create org-control --backend hsm --algorithm EdDSA --purpose did-control\n" +
			"  holdfast key create alice --backend card --algorithm ES256 --purpose did-auth --place 9a --touch-policy always",
		Args: args1("the key's name"),
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			if wrapped && resident {
				return usagef("--wrapped and --resident exclude each other")
			}
			r.Name = args[0]
			r.Residence = residence(wrapped, resident)
			var err error
			if r.PinPolicy, err = policy[pb.PinPolicy]("pin-policy", pin, pb.PinPolicy_value, "PIN_POLICY_"); err != nil {
				return err
			}
			if r.TouchPolicy, err = policy[pb.TouchPolicy]("touch-policy", touch, pb.TouchPolicy_value, "TOUCH_POLICY_"); err != nil {
				return err
			}
			k, err := daemon.CreateKey(ctx, &r)
			if err != nil {
				return err
			}
			return c.printKey(k)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&r.Backend, "backend", "", "the device to make it in")
	f.StringVar(&r.Algorithm, "algorithm", "", "what it does: ES256, EdDSA, RS256-3072, ECDH-P256 ...")
	f.StringVar(&r.Purpose, "purpose", "", "what it is for: did-control, assertion, key-agreement ...")
	f.BoolVar(&wrapped, "wrapped", false, "keep the key outside the device, encrypted under a key that never leaves it")
	f.BoolVar(&resident, "resident", false, "keep the key as an object in the device")
	f.StringVar(&r.Place, "place", "", "where in the device: a PIV slot (9a, 82), a TPM handle (0x81008000)")
	f.StringVar(&pin, "pin-policy", "", "when the device asks for its PIN: never, once or always")
	f.StringVar(&touch, "touch-policy", "", "when the device asks for a touch: never, always or cached")
	c.required(cmd, "backend", "algorithm", "purpose")
	return cmd
}

func residence(wrapped, resident bool) pb.Residence {
	switch {
	case wrapped:
		return pb.Residence_RESIDENCE_WRAPPED
	case resident:
		return pb.Residence_RESIDENCE_RESIDENT
	default:
		return pb.Residence_RESIDENCE_UNSPECIFIED
	}
}

// policy reads the value of a PIN or touch policy.
func policy[T ~int32](flag, value string, values map[string]int32, prefix string) (T, error) {
	if value == "" {
		return 0, nil
	}
	if n, ok := values[prefix+strings.ToUpper(value)]; ok && n != 0 {
		return T(n), nil
	}
	var choices []string
	for name, n := range values {
		if n != 0 {
			choices = append(choices, strings.ToLower(strings.TrimPrefix(name, prefix)))
		}
	}
	slices.Sort(choices)
	return 0, usagef("--%s is %q: choose one of %s", flag, value, strings.Join(choices, ", "))
}

func joined[T ~string](list []T) string {
	names := make([]string, len(list))
	for i, item := range list {
		names[i] = string(item)
	}
	return strings.Join(names, " ")
}

func purposeHelp() string {
	var b strings.Builder
	for _, p := range custody.Purposes() {
		fmt.Fprintf(&b, "  %-16s%s\n", p, p.Text())
	}
	return strings.TrimRight(b.String(), "\n")
}

func (c *cli) keyAdopt() *cobra.Command {
	var r pb.AdoptKeyRequest
	cmd := &cobra.Command{
		Use:     "adopt NAME --backend B --ref REF --purpose P",
		Short:   "Take a key that is on a device already into custody",
		Example: "  holdfast key adopt old-root --backend hsm --ref 'pkcs11:object=root2019' --purpose assertion",
		Args:    args1("the key's name"),
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			r.Name = args[0]
			k, err := daemon.AdoptKey(ctx, &r)
			if err != nil {
				return err
			}
			return c.printKey(k)
		}),
	}
	cmd.Flags().StringVar(&r.Backend, "backend", "", "the device it is on")
	cmd.Flags().StringVar(&r.Ref, "ref", "",
		"the key: pkcs11:object=LABEL or pkcs11:id=%01, piv:slot=9a, tpm:handle=0x81010005")
	cmd.Flags().StringVar(&r.Purpose, "purpose", "", "what it is for")
	c.required(cmd, "backend", "ref", "purpose")
	return cmd
}

func (c *cli) keyList() *cobra.Command {
	var r pb.ListKeysRequest
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys in the order of their names",
		Args:  noArgs,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, _ []string) error {
			all := &pb.ListKeysResponse{}
			r.PageSize = 1000
			for {
				resp, err := daemon.ListKeys(ctx, &r)
				if err != nil {
					return err
				}
				all.Keys = append(all.Keys, resp.GetKeys()...)
				if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" {
					break
				}
			}
			if c.json {
				return c.printJSON(all)
			}
			rows := [][]string{{"NAME", "BACKEND", "ALGORITHM", "PURPOSE", "KEPT", "CREATED"}}
			for _, k := range all.GetKeys() {
				rows = append(rows, []string{k.GetName(), k.GetBackend(), k.GetAlgorithm(), k.GetPurpose(), kept(k.GetResidence()),
					k.GetCreateTime().AsTime().Local().Format(time.DateTime)})
			}
			return c.table(rows)
		}),
	}
	cmd.Flags().StringVar(&r.Backend, "backend", "", "only those of this device")
	_ = cmd.RegisterFlagCompletionFunc("backend", c.completeBackends) // the flag is there
	return cmd
}

func kept(r pb.Residence) string {
	if r == pb.Residence_RESIDENCE_WRAPPED {
		return "wrapped"
	}
	return "in the device"
}

func (c *cli) keyShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a key",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			k, err := daemon.GetKey(ctx, &pb.GetKeyRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return c.printKey(k)
		}),
	}
}

func (c *cli) printKey(k *pb.Key) error {
	if c.json {
		return c.printJSON(k)
	}
	public := ""
	if der := k.GetPublicKey(); len(der) > 0 {
		if parsed, err := pubkey.ParseSPKI(der); err == nil {
			public, _ = pubkey.MarshalMultikey(parsed) // stays empty for a type without one
		}
	}
	adopted := ""
	if k.GetAdopted() {
		adopted = "yes: it was on the device before"
	}
	return c.fields(
		"key", k.GetName(),
		"backend", k.GetBackend(),
		"algorithm", k.GetAlgorithm(),
		"purpose", k.GetPurpose(),
		"kept", kept(k.GetResidence()),
		"ref", k.GetRef(),
		"public", public,
		"PIN policy", policyText(k.GetPinPolicy().String()),
		"touch policy", policyText(k.GetTouchPolicy().String()),
		"adopted", adopted,
		"created", k.GetCreateTime().AsTime().Local().Format(time.RFC3339),
	)
}

// policyText shortens an enum's name; the unspecified one is left out.
func policyText(name string) string {
	last := name[strings.LastIndexByte(name, '_')+1:]
	if last == "UNSPECIFIED" {
		return ""
	}
	return strings.ToLower(last)
}

func (c *cli) keyPublic() *cobra.Command {
	var format, output string
	cmd := &cobra.Command{
		Use:               "public NAME --format pem|jwk|multikey|ssh",
		Short:             "Print a key's public half",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			k, err := daemon.GetKey(ctx, &pb.GetKeyRequest{Name: args[0]})
			if err != nil {
				return err
			}
			text, err := publicText(k, format)
			if err != nil {
				return err
			}
			return c.writeOutput(output, text, 0o644)
		}),
	}
	cmd.Flags().StringVar(&format, "format", "pem", "pem, jwk, multikey or ssh")
	cmd.Flags().StringVar(&output, "output", "-", "file to write, - for standard output")
	_ = cmd.RegisterFlagCompletionFunc("format",
		cobra.FixedCompletions([]string{"pem", "jwk", "multikey", "ssh"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func publicText(k *pb.Key, format string) ([]byte, error) {
	if len(k.GetPublicKey()) == 0 {
		return nil, holdfast.Errorf(holdfast.ErrUnsupported, "", "%s is a secret key, without a public half", k.GetName())
	}
	public, err := pubkey.ParseSPKI(k.GetPublicKey())
	if err != nil {
		return nil, err
	}
	switch format {
	case "pem":
		return pubkey.MarshalPEM(public)
	case "jwk":
		return jwkText(k, public)
	case "multikey":
		text, err := pubkey.MarshalMultikey(public)
		return []byte(text + "\n"), err
	case "ssh":
		return pubkey.MarshalSSH(public, k.GetName())
	default:
		return nil, usagef("--format is %q: choose pem, jwk, multikey or ssh", format)
	}
}

func jwkText(k *pb.Key, public crypto.PublicKey) ([]byte, error) {
	thumbprint, err := pubkey.Thumbprint(public)
	if err != nil {
		return nil, err
	}
	jwk := pubkey.JWK{Public: public, KeyID: thumbprint}
	algorithm := holdfast.Algorithm(k.GetAlgorithm())
	if algorithm.Use() == holdfast.UseSign {
		jwk.Algorithm, jwk.Use = algorithm.JOSE(), "sig"
	} else {
		jwk.Use = "enc"
	}
	text, err := jwk.Marshal()
	return append(text, '\n'), err
}

func (c *cli) keyAttest() *cobra.Command {
	var output, nonce string
	cmd := &cobra.Command{
		Use:   "attest NAME --output DIR",
		Short: "Get the device's evidence that the key was made in it and cannot leave",
		Long: "Writes a folder that `holdfast evidence verify` checks on any machine, without a daemon. A verifier who wants\n" +
			"to know that the evidence is fresh gives a nonce.",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			raw, err := hex.DecodeString(nonce)
			if err != nil {
				return usagef("--nonce is not hexadecimal")
			}
			resp, err := daemon.AttestKey(ctx, &pb.AttestKeyRequest{Name: args[0], Nonce: raw})
			if err != nil {
				return err
			}
			if err := c.writeBundle(output, resp.GetFiles()); err != nil {
				return err
			}
			if c.json {
				return c.printAny(map[string]any{"kind": resp.GetKind(), "directory": output})
			}
			return c.printf("%s evidence in %s; check it with: holdfast evidence verify %s\n", resp.GetKind(), output, output)
		}),
	}
	cmd.Flags().StringVar(&output, "output", "", "folder to make")
	cmd.Flags().StringVar(&nonce, "nonce", "", "the verifier's nonce, hexadecimal, at most 64 bytes")
	c.required(cmd, "output")
	return cmd
}

// writeBundle makes dir, which must not hold anything yet, and writes the files.
func (c *cli) writeBundle(dir string, files map[string][]byte) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return holdfast.Errorf(holdfast.ErrExists, "", "%s is not empty; name a new folder", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if filepath.Base(name) != name {
			return holdfast.Errorf(holdfast.ErrIntegrity, "", "the daemon sent a file called %q", name)
		}
		if err := c.writeOutput(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) keyDestroy() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "destroy NAME",
		Short: "Destroy a key for ever",
		Long: "Destroys the private half. There is no way back. A key that a DID made here uses is destroyed with --force\n" +
			"only.",
		Args:              args1("the key's name"),
		ValidArgsFunction: c.completeKeys,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			if !yes {
				if err := c.confirm(args[0]); err != nil {
					return err
				}
			}
			if _, err := daemon.DestroyKey(ctx, &pb.DestroyKeyRequest{Name: args[0], Force: force}); err != nil {
				return err
			}
			if c.json {
				return c.printAny(map[string]any{"destroyed": args[0]})
			}
			return c.printf("%s is destroyed\n", args[0])
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "destroy it even though a DID uses it")
	return cmd
}

// confirm makes a person type the name of what is to be destroyed.
func (c *cli) confirm(name string) error {
	fmt.Fprintf(c.err, "Destroying %s cannot be undone. Type its name to go on: ", name)
	var typed strings.Builder
	buf := make([]byte, 1)
	for typed.Len() <= holdfast.MaxLabel {
		if n, err := c.in.Read(buf); n == 0 || buf[0] == '\n' {
			if err != nil && typed.Len() == 0 {
				return usagef("nobody is there to ask: add --yes")
			}
			break
		}
		typed.WriteByte(buf[0])
	}
	if strings.TrimRight(typed.String(), "\r") != name {
		return holdfast.Errorf(holdfast.ErrInvalid, "", "the name does not match; nothing was destroyed")
	}
	return nil
}
