package main

import (
	"fmt"
	"io"
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
func listed(out io.Writer, x *checkpoint.Explanation, states []checkpoint.Info) error {
	verdicts := make(map[string]*checkpoint.Verdict, len(x.Verdicts))
	for i := range x.Verdicts {
		verdicts[x.Verdicts[i].Partition] = &x.Verdicts[i]
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tNEWEST\tOWNER\tLAG\tPOSITION\tWATERMARK\tAGE\tRECORDS IN\tHELD BACK BY")
	for _, p := range states {
		position, watermark, records := "-", "-", "-"
		if b := p.Saved; b != nil {
			if p.Partition != stream.MergerPartition && b.Position != (stream.Position{}) {
				position = b.Position.String()
			}
			watermark, records = b.Watermark.String(), fmt.Sprint(b.Ledger.RecordsIn)
			if b.Idle {
				watermark += " (idle)"
			}
		}
		owner, lag, age, held := "-", "-", "-", "-"
		if v := verdicts[p.Partition]; v != nil {
			owner, lag, age, held = orDash(v.Owner), ago(v.Lag), ago(v.Age), string(v.Reason)
			if p.Partition == stream.MergerPartition && x.HeldBy != "" && x.Windowed && x.HeldBy != p.Partition {
				held = x.HeldBy
			}
		}
		fmt.Fprintf(w, "%s\t%d %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Partition, p.Newest, p.Kind, owner, lag, position, watermark, age, records, held)
	}
	return w.Flush()
}
