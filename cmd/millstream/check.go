package main

import (
	"github.com/spf13/cobra"

	"github.com/millstream/millstream/service"
)

func checkCommand() *cobra.Command {
	s := &service.QuerySettings{}
	var ddl bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Try everything a run with these flags needs; print the guarantee and the access it takes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ddl {
				q, err := s.Compile()
				if err != nil {
					return err
				}
				return service.DDL(&s.Settings, q, cmd.OutOrStdout())
			}
			return service.CheckQuery(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	s.Register(cmd.Flags())
	cmd.Flags().BoolVar(&ddl, "ddl", false, "only print a CREATE TABLE for each sink bigquery://PROJECT/DATASET/TABLE that fits the rows; connect to nothing")
	return cmd
}
