package main

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"holdfast/api/client"
	pb "holdfast/api/holdfastpb"
)

func (c *cli) didCommand() *cobra.Command {
	return group("did", "Decentralized identifiers", c.didCreate(), c.didShow(), c.didList(), c.didResolve())
}

func (c *cli) didCreate() *cobra.Command {
	var r pb.CreateDIDRequest
	cmd := &cobra.Command{
		Use:   "create --method key|jwk|webvh --key NAME",
		Short: "Make a DID whose keys live in devices",
		Long: "did:key and did:jwk are the public key itself. did:webvh is a log at a web address; it is controlled by an\n" +
			"Ed25519 key, and --next-key commits to the keys that may take over (pre-rotation), best on another device.",
		Example: "  holdfast did create --method webvh --domain id.example.com --path org --key org-control --next-key org-next \\\n" +
			"      --assertion org-issuer",
		Args: noArgs,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, _ []string) error {
			d, err := daemon.CreateDID(ctx, &r)
			if err != nil {
				return err
			}
			return c.printDID(d)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&r.Method, "method", "", "key, jwk or webvh")
	f.StringVar(&r.Key, "key", "", "the key that is the DID (key, jwk) or controls it (webvh)")
	f.StringArrayVar(&r.NextKeys, "next-key", nil,
		"webvh: Ed25519 key that may take over control; may be given several times")
	f.StringVar(&r.Domain, "domain", "", "webvh: the host, with :port if it is not 443")
	f.StringVar(&r.Path, "path", "", "webvh: the path below the host, as in teams/alice")
	f.StringArrayVar(&r.Authentication, "authentication", nil, "webvh: key to authenticate with")
	f.StringArrayVar(&r.Assertion, "assertion", nil, "webvh: key to issue credentials with")
	f.StringArrayVar(&r.KeyAgreement, "key-agreement", nil, "webvh: key to receive encrypted messages with")
	f.BoolVar(&r.Portable, "portable", false, "webvh: the DID may move to another host later")
	c.required(cmd, "method", "key")
	_ = cmd.RegisterFlagCompletionFunc("method",
		cobra.FixedCompletions([]string{"key", "jwk", "webvh"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *cli) printDID(d *pb.DID) error {
	if c.json {
		return c.printJSON(d)
	}
	pairs := []string{"DID", d.GetDid(), "log", d.GetUrl(), "created", d.GetCreateTime().AsTime().Local().Format(time.RFC3339)}
	for _, k := range d.GetKeys() {
		pairs = append(pairs, k.GetRole(), k.GetName())
	}
	if err := c.fields(pairs...); err != nil {
		return err
	}
	return c.println(indentJSON(d.GetDocument()))
}

func indentJSON(text string) string {
	var out bytes.Buffer
	if json.Indent(&out, []byte(text), "", "  ") != nil {
		return text
	}
	return out.String()
}

func (c *cli) didShow() *cobra.Command {
	var log bool
	cmd := &cobra.Command{
		Use:   "show DID",
		Short: "Show a DID that was made here",
		Args:  args1("the DID"),
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			d, err := daemon.GetDID(ctx, &pb.GetDIDRequest{Did: args[0]})
			if err != nil {
				return err
			}
			if log {
				return c.printf("%s", d.GetLog())
			}
			return c.printDID(d)
		}),
	}
	cmd.Flags().BoolVar(&log, "log", false, "print the did:webvh log (did.jsonl) as it is served")
	return cmd
}

func (c *cli) didList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the DIDs that were made here",
		Args:  noArgs,
		RunE: c.call(func(ctx context.Context, daemon *client.Client, _ []string) error {
			all := &pb.ListDIDsResponse{}
			request := &pb.ListDIDsRequest{PageSize: 1000}
			for {
				resp, err := daemon.ListDIDs(ctx, request)
				if err != nil {
					return err
				}
				all.Dids = append(all.Dids, resp.GetDids()...)
				if request.PageToken = resp.GetNextPageToken(); request.PageToken == "" {
					break
				}
			}
			if c.json {
				return c.printJSON(all)
			}
			rows := [][]string{{"DID", "METHOD", "CREATED"}}
			for _, d := range all.GetDids() {
				rows = append(rows, []string{d.GetDid(), d.GetMethod(), d.GetCreateTime().AsTime().Local().Format(time.DateTime)})
			}
			return c.table(rows)
		}),
	}
}

func (c *cli) didResolve() *cobra.Command {
	var r pb.ResolveDIDRequest
	var at string
	cmd := &cobra.Command{
		Use:   "resolve DID",
		Short: "Resolve any DID and check its history",
		Args:  args1("the DID"),
		RunE: c.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			r.Did = args[0]
			if at != "" {
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					return usagef("--version-time is %q: write it as 2026-01-31T12:00:00Z", at)
				}
				r.VersionTime = timestamppb.New(t)
			}
			resp, err := daemon.ResolveDID(ctx, &r)
			if err != nil {
				return err
			}
			if c.json {
				return c.printAny(map[string]json.RawMessage{
					"didDocument": json.RawMessage(resp.GetDocument()), "didDocumentMetadata": json.RawMessage(resp.GetDocumentMetadata())})
			}
			if err := c.println(indentJSON(resp.GetDocument())); err != nil {
				return err
			}
			return c.println(indentJSON(resp.GetDocumentMetadata()))
		}),
	}
	cmd.Flags().StringVar(&r.VersionId, "version-id", "", "the version with this versionId")
	cmd.Flags().StringVar(&at, "version-time", "", "the version that was current at this time")
	return cmd
}
