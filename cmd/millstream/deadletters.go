package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/millstream/millstream/service"
)

func deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dead-letters", Short: "What could not be used, by reason, and sending it again: list, show, replay"}
	cmd.AddCommand(deadLettersList(), deadLettersShow(), deadLettersReplay())
	return cmd
}

// letterCommand makes a command on one pipeline's dead letters.
func letterCommand(use, short string, run func(cmd *cobra.Command, letters iter.Seq2[service.Letter, error], where string) error) *cobra.Command {
	s := &service.LetterSettings{}
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if err := s.Load(); err != nil {
			return err
		}
		letters, where, done, err := s.Letters(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		return run(cmd, letters, where)
	}}
	s.Register(cmd.Flags())
	return cmd
}

func deadLettersList() *cobra.Command {
	return letterCommand("list", "One line a reason: how many, when, from which partitions, and an example's error",
		func(cmd *cobra.Command, letters iter.Seq2[service.Letter, error], where string) error {
			groups, err := grouped(letters)
			if err != nil {
				return err
			}
			if len(groups) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "no dead letters in %s\n", where)
				return nil
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "COUNT\tREASON\tSTAGE\tPARTITIONS\tFIRST\tLAST\tEXAMPLE")
			for _, g := range groups {
				fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", g.count, printable(g.reason, 60), g.stage, g.where(),
					g.first.Format(time.RFC3339), g.last.Format(time.RFC3339), printable(g.example, 80))
			}
			return t.Flush()
		})
}

// group is what list says of one reason.
type group struct {
	reason, stage, example string
	count                  int
	partitions             map[string]bool
	first, last            time.Time
}

// mostPartitions bounds what a group remembers.
const mostPartitions = 1000

func (g *group) where() string {
	switch n := len(g.partitions); n {
	case 0:
		return "-"
	case 1, 2:
		return strings.Join(slices.Sorted(maps.Keys(g.partitions)), ", ")
	default:
		return fmt.Sprint(n)
	}
}

// grouped counts letters by reason, the most frequent first.
func grouped(letters iter.Seq2[service.Letter, error]) ([]*group, error) {
	groups := make(map[string]*group)
	for l, err := range letters {
		if err != nil {
			return nil, err
		}
		g := groups[l.Reason]
		if g == nil {
			g = &group{reason: l.Reason, stage: l.Stage, example: l.Error, partitions: make(map[string]bool), first: l.Written}
			groups[l.Reason] = g
		}
		g.count++
		g.last = l.Written // files come by time
		if len(g.partitions) < mostPartitions && l.Partition != "" {
			g.partitions[l.Partition] = true
		}
	}
	return slices.SortedFunc(maps.Values(groups), func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.reason, b.reason))
	}), nil
}

func deadLettersShow() *cobra.Command {
	limit := 0
	cmd := letterCommand("show", "Letters with the records that they hold, oldest first",
		func(cmd *cobra.Command, letters iter.Seq2[service.Letter, error], where string) error {
			if limit < 0 {
				return &service.SettingError{Setting: "--limit", Problem: "is negative: 0 means all"}
			}
			out, shown, more := bufio.NewWriter(cmd.OutOrStdout()), 0, 0
			for l, err := range letters {
				if err != nil {
					return err
				}
				if limit > 0 && shown == limit {
					more++
					continue
				}
				shown++
				showLetter(out, &l)
			}
			switch {
			case shown == 0:
				fmt.Fprintf(out, "no such dead letters in %s\n", where)
			case more > 0:
				fmt.Fprintf(out, "… and %d more: --limit 0 shows all, --reason and --since fewer\n", more)
			}
			return out.Flush()
		})
	cmd.Flags().IntVar(&limit, "limit", 20, "letters shown at most; 0: all")
	return cmd
}

func showLetter(out *bufio.Writer, l *service.Letter) {
	fmt.Fprintf(out, "%s  (stage %s, %s", printable(l.Reason, 200), l.Stage, l.Partition)
	if l.Position != "" {
		fmt.Fprintf(out, " at %s", printable(l.Position, 200))
	}
	if l.EventTime != "" {
		fmt.Fprintf(out, ", event time %s", l.EventTime)
	}
	fmt.Fprintf(out, ")\n  written %s in %s\n", l.Written.Format(time.RFC3339), l.File)
	if l.Error != "" {
		fmt.Fprintf(out, "  error   %s\n", printable(l.Error, 400))
	}
	whole := ""
	if !l.Whole() {
		whole = fmt.Sprintf(" of %d", l.Length)
	}
	fmt.Fprintf(out, "  record  (%d%s bytes) %s\n\n", len(l.Raw), whole, printable(string(l.Raw), 2000))
}

// printable is a text that a terminal takes for nothing else, and not much longer than most bytes.
func printable(s string, most int) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if b.Len() >= most {
			return b.String() + "…"
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

func deadLettersReplay() *cobra.Command {
	var to string
	var perSecond float64
	var dry, yes bool
	cmd := letterCommand("replay", "Send the records again, byte for byte: to standard output, or to a stream, folder or bucket",
		func(cmd *cobra.Command, letters iter.Seq2[service.Letter, error], where string) error {
			if perSecond < 0 {
				return &service.SettingError{Setting: "--rate", Problem: "is negative: 0 means no bound"}
			}
			asking := to != "" && !yes && term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
			if dry || asking {
				groups, err := grouped(letters)
				if err != nil {
					return err
				}
				total := 0
				for _, g := range groups {
					fmt.Fprintf(cmd.ErrOrStderr(), "%8d  %s\n", g.count, printable(g.reason, 200))
					total += g.count
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d records of %s would go to %s\n", total, where, cmp.Or(to, "standard output"))
				if dry || total == 0 {
					return nil
				}
				fmt.Fprint(cmd.ErrOrStderr(), "Send them? Letters stay where they are: a second replay sends them twice. [y/N] ")
				answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
				if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
					return errors.New("nothing was sent")
				}
			}
			done, err := service.Replay(cmd.Context(), letters, to, perSecond, cmd.OutOrStdout())
			if err != nil && done == (service.Replayed{}) {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d records sent to %s", done.Sent, cmp.Or(to, "standard output"))
			if done.Short > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "; %d not, whose letters hold only their beginning: read them at their source, by partition and position", done.Short)
			}
			fmt.Fprintln(cmd.ErrOrStderr())
			return err
		})
	cmd.Long = cmd.Short + `.

Letters stay where they are. On a terminal replay --to first says what would be sent, and asks.

  millstream dead-letters replay --reason 'no event time' | my-repair > fixed.ndjson
  millstream dead-letters replay --since 2h --to 'kinesis://orders?region=eu-central-1' --rate 500`
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "where to send the records: kinesis://, pubsub://, eventhubs://, a folder or a bucket (default: standard output)")
	f.Float64Var(&perSecond, "rate", 0, "records a second at most; 0: no bound")
	f.BoolVar(&dry, "dry-run", false, "only say what would be sent")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
