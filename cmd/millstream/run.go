package main

import (
	"github.com/spf13/cobra"

	"github.com/millstream/millstream/service"
)

func runCommand() *cobra.Command {
	s := &service.QuerySettings{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a pipeline until it is stopped, or its source ends",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return service.RunQuery(cmd.Context(), s, cmd.ErrOrStderr())
		},
	}
	s.Register(cmd.Flags())
	return cmd
}
