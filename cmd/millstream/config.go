package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millstream/millstream/service"
)

func configCommand() *cobra.Command {
	s := &service.QuerySettings{}
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print every setting, its value, and where the value comes from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.Compile(); err != nil {
				return err
			}
			if err := s.Resolve(); err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "FLAG\tENVIRONMENT\tVALUE\tFROM")
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name == "help" {
					return
				}
				value := f.Value.String()
				if f.Name == "name" {
					value = s.Name
				}
				if f.Value.Type() == "duration" && f.Name == "out-of-order" && service.Origin(f) == "default" {
					value = "by source"
				}
				fmt.Fprintf(w, "--%s\t%s\t%s\t%s\n", f.Name, service.EnvName(f.Name), service.Redact(strings.ReplaceAll(value, "\n", `\n`)), service.Origin(f))
			})
			return w.Flush()
		},
	}
	s.Register(cmd.Flags())
	return cmd
}
