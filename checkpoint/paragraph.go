package checkpoint

import (
	"fmt"
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
)

// Paragraph says it in words: what is out, what holds the next windows back, since when and why, which
// windows wait, and what to do.
func (x *Explanation) Paragraph(name string) string {
	var s sentences
	switch x.State {
	case StateNone:
		s.add("pipeline %q has no saved state: it was never run with this --checkpoint and --name", name)
	case StateEnded:
		s.add("pipeline %q has ended: every window is out, and nothing waits", name)
	case StateImported:
		s.add("pipeline %q was imported from %s and was never run", name, x.Imported)
		s.add("To do: start it")
	case StateUnknown:
		s.add("what is out of pipeline %q, and what waits, is unknown: the merger stops", name)
		x.because(&s, stream.MergerPartition)
	case StateReset:
		s.add("pipeline %q was reset: it begins again from its source's start once a merger has saved a roster", name)
		x.because(&s, stream.MergerPartition)
	case StateBegun:
		s.add("pipeline %q has begun and has no roster yet: nothing is read before its merger has saved one", name)
		x.because(&s, stream.MergerPartition)
	case StateRunning:
		x.running(&s, name)
	}
	if x.State != StateRunning {
		x.damaged(&s)
	}
	for _, c := range x.Clocks {
		s.add("%s", c+": correct it, since idle partitions go by the members' smallest clock, and records beyond the owner's are dead-lettered")
	}
	return s.String()
}

func (x *Explanation) running(s *sentences, name string) {
	switch {
	case !x.Windowed:
		s.add("pipeline %q shows no windows: each partition delivers its own rows, and none waits for another", name)
		if x.Live == 0 {
			s.add("No instance lives: %s. To do: start one", x.Last)
		}
		x.unwell(s, "")
		return
	case x.Frontier == stream.Beginning:
		s.add("pipeline %q: no window is out yet", name)
	default:
		s.add("pipeline %q: windows that end by %s are out%s", name, x.Frontier, x.behind(x.Frontier))
	}
	if x.Live == 0 {
		s.add("No instance lives: %s. To do: start one, and it takes over within seconds of having watched for a lease", x.Last)
	}
	since := ""
	if !x.Since.IsZero() {
		since = fmt.Sprintf(", since %s (%s)", x.Since.UTC().Format(time.RFC3339), span(x.Now.Sub(x.Since)))
	}
	switch v := x.verdict(x.HeldBy); {
	case v == nil:
		s.add("What holds the next ones back is unknown")
	case x.HeldBy == stream.MergerPartition && v.Reason.well():
		s.add("The partitions are past that: the merger has only to merge, which it does as entries are saved")
		x.because(s, x.HeldBy)
	case x.HeldBy == stream.MergerPartition:
		s.add("The next ones wait for the merger")
		x.because(s, x.HeldBy)
	case v.Reason == ReasonDamaged:
		s.add("The next ones wait for partition %s%s", x.HeldBy, since)
		x.because(s, x.HeldBy)
	case v.Watermark == stream.Beginning:
		s.add("The next ones wait for partition %s, whose watermark has not begun%s", x.HeldBy, since)
		x.because(s, x.HeldBy)
	default:
		s.add("The next ones wait for partition %s, whose watermark is %s%s", x.HeldBy, v.Watermark, since)
		x.because(s, x.HeldBy)
	}
	w := &x.Waiting
	if w.Slices > 0 {
		s.add("Waiting: %s in windows from %s to %s, frozen and saved", records(w.Records), w.From, w.To)
	} else {
		s.add("Waiting: nothing that is frozen and saved")
	}
	if w.Open > 0 {
		s.add("Windows of one partition that still take records: %d at most", w.Open)
	}
	x.unwell(s, x.HeldBy)
}

// behind says how far an event time is behind the clock, when it is.
func (x *Explanation) behind(at stream.Instant) string {
	if d := x.Now.Sub(at.Time()); at.Finite() && d > 0 {
		return fmt.Sprintf(" (%s behind the clock)", span(d))
	}
	return ""
}

func records(n int64) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}

func (x *Explanation) verdict(partition string) *Verdict {
	for i := range x.Verdicts {
		if x.Verdicts[i].Partition == partition {
			return &x.Verdicts[i]
		}
	}
	return nil
}

// because adds why a partition stands, and what to do.
func (x *Explanation) because(s *sentences, partition string) {
	v := x.verdict(partition)
	if v == nil {
		return
	}
	s.add("Why: %s", v.Text)
	if v.Do != "" {
		s.add("To do: %s", v.Do)
	}
}

// unwell names the other partitions that need somebody.
func (x *Explanation) unwell(s *sentences, but string) {
	const most = 3
	var more []*Verdict
	for i := range x.Verdicts {
		if v := &x.Verdicts[i]; v.Partition != but && !v.Reason.well() && !(x.Live == 0 && v.Reason.absent()) {
			more = append(more, v)
		}
	}
	for i, v := range more {
		if i == most {
			s.add("%d more are not well: see below", len(more)-most)
			break
		}
		who := "Partition " + v.Partition
		if v.Partition == stream.MergerPartition {
			who = "The merger"
		}
		s.add("%s is %s: %s", who, v.Reason, v.Text)
		if v.Do != "" {
			s.add("To do: %s", v.Do)
		}
	}
	if len(more) == 0 && but == "" && x.Live > 0 {
		s.add("No partition is in trouble")
	}
}

// damaged names the partitions whose logs cannot be read, where nothing else is said of partitions.
func (x *Explanation) damaged(s *sentences) {
	for i := range x.Verdicts {
		if v := &x.Verdicts[i]; v.Reason == ReasonDamaged && v.Partition != stream.MergerPartition {
			s.add("Partition %s is damaged: %s", v.Partition, v.Text)
			s.add("To do: %s", v.Do)
		}
	}
}

// sentences are joined by full stops. Errors come in with their own line breaks, and leave without.
type sentences []string

func (s *sentences) add(format string, args ...any) {
	text := strings.TrimRight(strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "), ".")
	*s = append(*s, strings.ToUpper(text[:1])+text[1:]+".")
}

func (s sentences) String() string { return strings.Join(s, " ") }
