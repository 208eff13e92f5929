// Command bench measures Millstream on this machine, as ratios from one run.
//
//	go run ./bench engine          the engine against a bare loop
//	go run ./bench engine --json   the same, a JSON object a line
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{Use: "bench", Short: "Measure Millstream on this machine", SilenceUsage: true}
	root.AddCommand(engineCommand())
	if root.Execute() != nil {
		os.Exit(1)
	}
}

func engineCommand() *cobra.Command {
	var asJSON bool
	var events int
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "The engine, driven by flags, against a bare loop with the same decoder",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			emit := func(r result) {
				if asJSON {
					line, _ := json.Marshal(r) // plain fields always marshal
					fmt.Println(string(line))
					return
				}
				fmt.Print(r.text())
			}
			return benchEngine(cmd.Context(), events, emit)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "a JSON object a line")
	cmd.Flags().IntVar(&events, "events", 2_000_000, "events a workload")
	return cmd
}

// result is what one workload showed.
type result struct {
	Workload string  `json:"workload"`
	Bare     float64 `json:"bare_events_per_core_second"`
	Engine   float64 `json:"engine_events_per_core_second,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"`
	Allocs   float64 `json:"allocs_per_event,omitempty"`
	Result   string  `json:"result,omitempty"`
}

func (r result) text() string {
	s := fmt.Sprintf("%-14s bare loop %5.2f M events/core-second", r.Workload, r.Bare/1e6)
	if r.Engine > 0 {
		s += fmt.Sprintf("   engine %5.2f M   ratio %.2f   %.4f allocations an event   result %s", r.Engine/1e6, r.Ratio, r.Allocs, r.Result)
	}
	return s + "\n"
}
