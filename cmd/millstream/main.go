// Command millstream is the ready-made service: a partitioned stream in, right windowed totals out,
// configured by flags and environment.
package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millstream/millstream/service"
)

func main() {
	ctx, stop := service.Signals(context.Background())
	defer stop()
	service.Exit(rootCommand().ExecuteContext(ctx))
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "millstream",
		Short: "Right windowed totals from Kinesis, Event Hubs and files, with only a bucket for state",
		Long: `Millstream reads a partitioned stream, aggregates it per key in event-time windows, and delivers
rows that are right whatever is killed meanwhile. Its only state service is a bucket or a folder.

See it survive:   millstream demo
Your own file:    millstream run --source events.ndjson --until-end --key user --time at \
                    --window tumbling:1m --aggregate 'count() as n' --sink stdout:
Before you run:   millstream check (with the same flags)`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return service.FlagError(cmd.Flags(), err) })
	root.SuggestionsMinimumDistance = 2
	root.AddCommand(runCommand(), demoCommand(), checkCommand(), checkpointsCommand(), deadLettersCommand(), explainCommand(), configCommand(), versionCommand())
	root.InitDefaultCompletionCmd() // which Execute would add too late for noArguments
	noArguments(root)
	return root
}

// noArguments turns cobra's complaints about commands and arguments into ours: one line, exit code 2.
func noArguments(cmd *cobra.Command) {
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.SuggestionsMinimumDistance = 2
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := ""
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				hint = ": did you mean " + s[0] + "?"
			}
			return &service.SettingError{Setting: cmd.CommandPath() + " " + args[0], Problem: "no such command" + hint}
		}
	}
	for _, sub := range cmd.Commands() {
		noArguments(sub)
		if check := sub.Args; check != nil {
			sub.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return &service.SettingError{Setting: strings.TrimPrefix(cmd.CommandPath(), "millstream "),
						Problem: fmt.Sprintf("unexpected or missing arguments %q: write millstream %s", args, strings.TrimPrefix(strings.TrimSuffix(cmd.UseLine(), " [flags]"), "millstream "))}
				}
				return nil
			}
		}
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), "millstream "+version())
			return nil
		},
	}
}

// version is the module's, or the commit's when built from a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v += " " + s.Value[:min(12, len(s.Value))]
			case "vcs.modified":
				if s.Value == "true" {
					v += "+changes"
				}
			}
		}
	}
	return v + " " + strings.Replace(info.GoVersion, "go", "go ", 1)
}
