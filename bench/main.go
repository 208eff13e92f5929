// Command bench measures Millstream on this machine, as ratios from one run.
//
//	go run ./bench engine          the engine against a bare loop
//	go run ./bench engine --json   the same, a JSON object a line
//	go run ./bench sources         each source, from the wire, against its official client alone
//	go run ./bench sinks           what sinks send, what it costs, packed and not
//	go run ./bench enrich          lookups through the cache, against a map that holds every row
//	go run ./bench fleet           a large fleet in virtual time: requests, dollars, take-overs
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	if call := os.Getenv(simulationVariable); call != "" {
		simulate(call)
		return
	}
	if load := os.Getenv(serverVariable); load != "" {
		if err := serveSource(load); err != nil {
			fmt.Fprintln(os.Stderr, "bench: serving:", err)
			os.Exit(1)
		}
		return
	}
	root := &cobra.Command{Use: "bench", Short: "Measure Millstream on this machine", SilenceUsage: true}
	root.AddCommand(engineCommand(), sourcesCommand(), sinksCommand(), enrichCommand(), fleetCommand())
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

func sourcesCommand() *cobra.Command {
	var asJSON bool
	var p sourcePlan
	cmd := &cobra.Command{
		Use:   "sources",
		Short: "Each source, served by another process, against its official client with an empty handler",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.check(); err != nil {
				return err
			}
			return benchSources(cmd.Context(), p, func(r sourceResult) {
				if asJSON {
					line, _ := json.Marshal(r) // plain fields always marshal
					fmt.Println(string(line))
					return
				}
				fmt.Print(r.text())
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "a JSON object a line")
	f.StringSliceVar(&p.Sources, "source", nil, "which: kinesis, pubsub, eventhubs (default: all)")
	f.IntVar(&p.Events, "events", 0, "events a source (default: kinesis 1,000,000, pubsub 300,000, eventhubs 200,000)")
	f.IntVar(&p.Rounds, "rounds", 3, "how often everything is measured; the best of each counts")
	return cmd
}

func sinksCommand() *cobra.Command {
	var asJSON bool
	var p sinkPlan
	cmd := &cobra.Command{
		Use:   "sinks",
		Short: "Calls, bytes and billed units of a million rows, packed and not, and the state's requests",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.check(); err != nil {
				return err
			}
			return benchSinks(cmd.Context(), p, func(r *sinkResult) {
				if asJSON {
					line, _ := json.Marshal(r) // plain fields always marshal
					fmt.Println(string(line))
					return
				}
				fmt.Print(r.text())
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "a JSON object a line")
	f.IntVar(&p.Rows, "rows", 1_000_000, "rows, whose figures are then those of a million")
	f.IntVar(&p.Size, "size", 254, "bytes of a row")
	f.IntVar(&p.Rate, "rate", 10_000, "rows a second")
	f.IntVar(&p.Partitions, "partitions", 10, "partitions of the source, each with checkpoints of its own")
	f.DurationVar(&p.Interval, "interval", 10*time.Second, "time between two checkpoints of a partition")
	f.StringVar(&p.Sink, "sink", "", "one of them only, as printed")
	return cmd
}

func enrichCommand() *cobra.Command {
	var asJSON bool
	var p enrichPlan
	cmd := &cobra.Command{
		Use:   "enrich",
		Short: "Lookups through the cache before a backend that takes milliseconds, against a map in memory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.check(); err != nil {
				return err
			}
			return benchEnrich(cmd.Context(), p, func(r *enrichResult) {
				if asJSON {
					line, _ := json.Marshal(r) // plain fields always marshal
					fmt.Println(string(line))
					return
				}
				fmt.Print(r.text())
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "a JSON object a line")
	f.IntVar(&p.Events, "events", 2_000_000, "events a run")
	f.IntVar(&p.Keys, "keys", 1_000_000, "distinct keys, drawn by a zipf law of exponent 1")
	f.IntVar(&p.Partitions, "partitions", 4, "partitions of the source")
	f.DurationVar(&p.Latency, "latency", 5*time.Millisecond, "how long the backend takes for a call")
	f.IntVar(&p.PerCall, "per-call", 100, "keys that it takes in one")
	f.IntVar(&p.Rounds, "rounds", 3, "how often everything is measured; the best of each counts")
	return cmd
}

func fleetCommand() *cobra.Command {
	var asJSON bool
	var p fleetPlan
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "A large fleet in virtual time, over the real leases, logs and merger",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.Instances < 3 || p.Partitions < p.Instances {
				return fmt.Errorf("want at least 3 instances, and a partition for each")
			}
			r, err := benchFleet(cmd.Context(), p)
			if err != nil {
				return err
			}
			if asJSON {
				line, _ := json.Marshal(r) // plain fields always marshal
				fmt.Println(string(line))
				return nil
			}
			r.print(os.Stdout)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "as JSON")
	f.IntVar(&p.Partitions, "partitions", 10_000, "how many partitions")
	f.IntVar(&p.Instances, "instances", 200, "how many instances")
	f.DurationVar(&p.Interval, "interval", 10*time.Second, "time between two checkpoints of a partition")
	f.DurationVar(&p.Lease, "lease", 15*time.Second, "as --lease")
	f.DurationVar(&p.Watch, "watch", time.Minute, "how long requests are counted, in virtual time")
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
