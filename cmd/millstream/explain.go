package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

func explainCommand() *cobra.Command {
	cmd := storeCommand("explain", "Why windows wait: which partition holds them back, since when, and what to do", cobra.NoArgs,
		func(cmd *cobra.Command, s *service.StoreSettings, _ []string) error {
			x, err := explain(cmd, s, true)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, x.Paragraph(s.Name))
			if len(x.Verdicts) == 0 {
				return nil
			}
			fmt.Fprintln(out)
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PARTITION\tSTATE\tOWNER\tWATERMARK\tLAG\tAGE\tHOLDS BACK")
			for _, v := range x.Verdicts {
				holds := ""
				if x.HeldBy == v.Partition && x.State == checkpoint.StateRunning {
					holds = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Partition, v.Reason, orDash(v.Owner), v.Watermark, ago(v.Lag), ago(v.Age), orDash(holds))
			}
			return w.Flush()
		})
	cmd.Long = `Why windows wait: which partition holds them back, since when, why, which windows wait, and what to do.

It reads the logs and the heartbeats in --checkpoint and nothing else, so that it works with everything
down. Where those do not tell it says so. A heartbeat that is old is watched for half a --lease, to tell a
dead instance from one whose clock is wrong. OWNER is who holds the partition's lease, LAG how long ago the
newest record that it has read arrived at the source, AGE how old the owner's last heartbeat is.`
	return cmd
}

// explain draws conclusions from what the store says now.
func explain(cmd *cobra.Command, s *service.StoreSettings, patient bool) (*checkpoint.Explanation, error) {
	store, done, err := s.Open(cmd.Context())
	if err != nil {
		return nil, err
	}
	defer done()
	facts, err := store.Facts(cmd.Context(), patient)
	if err != nil {
		return nil, err
	}
	return checkpoint.Explain(facts), nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago prints a duration that is unknown when it is negative.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// listed prints one line a partition, the merger first.
func listed(out io.Writer, x *checkpoint.Explanation, facts *checkpoint.Facts) error {
	verdicts := make(map[string]*checkpoint.Verdict, len(x.Verdicts))
	for i := range x.Verdicts {
		verdicts[x.Verdicts[i].Partition] = &x.Verdicts[i]
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tNEWEST\tOWNER\tLAG\tPOSITION\tWATERMARK\tAGE\tRECORDS IN\tHELD BACK BY")
	for _, name := range partitions(facts, x) {
		t, merger := facts.Logs[name], name == stream.MergerPartition
		newest, position, watermark, records := "-", "-", "-", "-"
		if t.Newest != nil {
			newest = fmt.Sprintf("%d %s", t.Newest.Number, t.Newest.Kind)
		}
		if b := t.Base; b != nil {
			if !merger && b.Position != (stream.Position{}) {
				position = b.Position.String()
			}
			watermark, records = b.Watermark.String(), fmt.Sprint(b.Ledger.RecordsIn)
			if b.Idle {
				watermark += " (idle)"
			}
		}
		owner, lag, age, held := "-", "-", "-", "-"
		if v := verdicts[name]; v != nil {
			owner, lag, age, held = orDash(v.Owner), ago(v.Lag), ago(v.Age), string(v.Reason)
			if position == "-" && v.Position != (stream.Position{}) {
				position = v.Position.String()
			}
			if merger && x.HeldBy != "" && x.Windowed && x.HeldBy != name {
				held = x.HeldBy
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, newest, owner, lag, position, watermark, age, records, held)
	}
	return w.Flush()
}

// partitions are those with a log and those of the roster, the merger first.
func partitions(facts *checkpoint.Facts, x *checkpoint.Explanation) []string {
	names := make(map[string]bool)
	for name := range facts.Logs {
		names[name] = name != stream.MergerPartition
	}
	for _, v := range x.Verdicts {
		names[v.Partition] = v.Partition != stream.MergerPartition
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		if names[a] != names[b] {
			if names[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
}

// damage is an error that names the first log that cannot be read.
func damage(facts *checkpoint.Facts) error {
	for _, name := range slices.Sorted(maps.Keys(facts.Logs)) {
		if d := facts.Logs[name].Damaged; d != "" {
			return errors.New(d)
		}
	}
	return nil
}
