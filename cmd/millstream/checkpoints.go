package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/service"
)

func checkpointsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "checkpoints", Short: "Look at the saved state, start again, or go on for another program: list, show, reset, import"}
	cmd.AddCommand(checkpointsList(), checkpointsShow(), checkpointsReset(), checkpointsImport())
	return cmd
}

// storeCommand makes a command on one pipeline's saved state.
func storeCommand(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, s *service.StoreSettings, args []string) error) *cobra.Command {
	s := &service.StoreSettings{}
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		if err := s.Load(); err != nil {
			return err
		}
		return run(cmd, s, args)
	}}
	s.Register(cmd.Flags())
	return cmd
}

func checkpointsList() *cobra.Command {
	return storeCommand("list", "One line a partition: newest entry, owner, lag, position, watermark, what holds it back", cobra.NoArgs,
		func(cmd *cobra.Command, s *service.StoreSettings, _ []string) error {
			store, done, err := s.Open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			facts, err := store.Facts(cmd.Context(), false)
			if err != nil {
				return err
			}
			if len(facts.Logs) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "pipeline %q has no saved state in %s\n", s.Name, s.Checkpoint)
				return nil
			}
			x := checkpoint.Explain(facts)
			if err := listed(cmd.OutOrStdout(), x, facts); err != nil {
				return err
			}
			if x.State == checkpoint.StateRunning && x.Windowed && x.HeldBy != "" {
				since := ""
				if !x.Since.IsZero() {
					since = ", since " + x.Since.UTC().Format(time.RFC3339)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "\nwindows up to %s are out; the next wait for %s%s (millstream explain)\n", x.Frontier, x.HeldBy, since)
			}
			return damage(facts)
		})
}

func checkpointsShow() *cobra.Command {
	return storeCommand("show PARTITION [NUMBER]", "One entry of a log, the newest by default", cobra.RangeArgs(1, 2),
		func(cmd *cobra.Command, s *service.StoreSettings, args []string) error {
			var n uint64
			if len(args) == 2 {
				var err error
				if n, err = strconv.ParseUint(args[1], 10, 64); err != nil || n == 0 {
					return &service.SettingError{Setting: "NUMBER", Problem: args[1] + " is not the number of an entry"}
				}
			}
			store, done, err := s.Open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			if n == 0 {
				infos, err := store.List(cmd.Context())
				if err != nil {
					return err
				}
				for _, p := range infos {
					if p.Partition == args[0] {
						n = p.Newest
					}
				}
			}
			e, err := store.Show(cmd.Context(), args[0], n)
			if err != nil {
				return err
			}
			return service.PrintEntry(cmd.OutOrStdout(), e)
		})
}

func checkpointsReset() *cobra.Command {
	return storeCommand("reset", "Start the whole pipeline again from its source's start", cobra.NoArgs,
		func(cmd *cobra.Command, s *service.StoreSettings, _ []string) error {
			store, done, err := s.Open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			reset, err := store.Reset(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pipeline %q: %d logs reset. The next run reads from the source's start.\n"+
				"Rows that were delivered before come again under new names: to every --sink of that run. Empty those first, or use new ones.\n", s.Name, len(reset))
			return nil
		})
}
