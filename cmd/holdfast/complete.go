package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"holdfast"
	pb "holdfast/api/holdfastpb"
	"holdfast/custody"
)

// completionTimeout bounds how long a shell waits for the daemon.
const completionTimeout = time.Second

// required marks flags as required and completes those whose values are known.
func (c *cli) required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.MarkFlagRequired(name) // the flags are there, here and below
	}
	var algorithms, purposes []string
	for _, a := range holdfast.Algorithms() {
		algorithms = append(algorithms, string(a))
	}
	for _, p := range custody.Purposes() {
		purposes = append(purposes, cobra.CompletionWithDesc(string(p), p.Text()))
	}
	for name, complete := range map[string]cobra.CompletionFunc{
		"backend":   c.completeBackends,
		"algorithm": cobra.FixedCompletions(algorithms, cobra.ShellCompDirectiveNoFileComp),
		"purpose":   cobra.FixedCompletions(purposes, cobra.ShellCompDirectiveNoFileComp),
	} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, complete)
		}
	}
}

func (c *cli) completeBackends(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	daemon, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	resp, err := daemon.ListBackends(ctx, &pb.ListBackendsRequest{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, b := range resp.GetBackends() {
		names = append(names, cobra.CompletionWithDesc(b.GetName(), deviceName(b.GetDevice())))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeKeys(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	daemon, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	resp, err := daemon.ListKeys(ctx, &pb.ListKeysRequest{PageSize: 1000})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, k := range resp.GetKeys() {
		names = append(names, cobra.CompletionWithDesc(k.GetName(), k.GetAlgorithm()+" on "+k.GetBackend()))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
