package checkpoint

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
)

// Reason is one word or two for what a partition does.
type Reason string

const (
	ReasonEnded     Reason = "ended"
	ReasonChildren  Reason = "parent not ended" // read to its end; a child waits for another parent
	ReasonUncounted Reason = "children not counted"
	ReasonDamaged   Reason = "damaged"
	ReasonNeverRead Reason = "never read"
	ReasonUnowned   Reason = "unowned"
	ReasonDead      Reason = "owner dead"
	ReasonSilent    Reason = "owner silent" // for half a lease, and not yet for a whole one
	ReasonCrashLoop Reason = "crash-looping"
	ReasonStarting  Reason = "starting"
	ReasonStuck     Reason = "stuck"
	ReasonThrottled Reason = "throttled"
	ReasonPaused    Reason = "paused"
	ReasonIdle      Reason = "idle"
	ReasonQuiet     Reason = "caught up"
	ReasonReading   Reason = "reading"
	ReasonFuture    Reason = "clock far ahead"
	ReasonMerging   Reason = "merging"
)

// well reports whether the reason needs nobody.
func (r Reason) well() bool {
	switch r {
	case ReasonEnded, ReasonIdle, ReasonQuiet, ReasonReading, ReasonMerging, ReasonStarting, ReasonUncounted:
		return true
	}
	return false
}

// absent reports whether the reason is that nobody is there.
func (r Reason) absent() bool {
	return r == ReasonDead || r == ReasonUnowned || r == ReasonNeverRead
}

// Verdict is what is true of one partition, or of the merger.
type Verdict struct {
	Partition string
	Reason    Reason
	Text      string // whole sentences, of which Partition is the subject ("it")
	Do        string // what a person can do; empty: nothing
	Owner     string // empty: nobody
	Watermark stream.Instant
	Position  stream.Position // saved
	Lag       time.Duration   // age of the newest record read; negative: unknown
	Age       time.Duration   // of the owner's heartbeat; negative: there is none
}

// Waiting is what a frontier holds back.
type Waiting struct {
	Slices  int   // frozen and saved, not in any row yet
	Records int64 // in them
	From    stream.Instant
	To      stream.Instant
	Open    int // windows that still take records, by the heartbeats of living owners
}

// Explanation says why a pipeline's windows are where they are.
type Explanation struct {
	State    State
	Windowed bool
	Frontier stream.Instant
	HeldBy   string    // the partition; the merger's own name when it is the merger; empty: nothing
	Since    time.Time // zero: unknown
	Waiting  Waiting
	Live     int    // members that live
	Last     string // when none lives: whose the newest heartbeat is, and how old
	Imported string
	Verdicts []Verdict // the merger's, then every partition's
	Clocks   []string  // members whose clock is wrong
	Now      time.Time
}

// State of a pipeline.
type State string

const (
	StateNone     State = "no state"
	StateUnknown  State = "unknown" // the merger's log is damaged
	StateReset    State = "reset"
	StateImported State = "imported"
	StateBegun    State = "begun" // claimed, and no roster saved yet
	StateRunning  State = "running"
	StateEnded    State = "ended"
)

// Explain draws conclusions from the facts, and from nothing else.
func Explain(f *Facts) *Explanation {
	x := explain(f)
	for _, name := range slices.Sorted(maps.Keys(f.Logs)) { // also of those that no roster names
		if f.Logs[name].Damaged != "" && x.verdict(name) == nil {
			x.Verdicts = append(x.Verdicts, f.verdict(name))
		}
	}
	return x
}

func explain(f *Facts) *Explanation {
	x := &Explanation{Now: f.Now, Frontier: stream.Beginning, Live: f.living()}
	if len(f.Logs) == 0 {
		x.State = StateNone
		return x
	}
	x.clocks(f)
	x.last(f)
	merger, base := f.verdict(stream.MergerPartition), f.Logs[stream.MergerPartition].Base
	if merger.Reason != ReasonEnded {
		x.Verdicts = append(x.Verdicts, merger)
	}
	switch {
	case merger.Reason == ReasonDamaged:
		x.State, x.HeldBy = StateUnknown, stream.MergerPartition
		return x
	case base == nil:
		x.State, x.HeldBy = StateBegun, stream.MergerPartition
		return x
	case base.Kind == stream.KindReset:
		x.State, x.HeldBy = StateReset, stream.MergerPartition
		return x
	case base.Merger == nil:
		x.State, x.HeldBy = StateBegun, stream.MergerPartition
		return x
	}
	m := base.Merger
	x.State, x.Frontier = StateRunning, m.Frontier
	if m.Imported != nil {
		x.Imported = m.Imported.From
	}
	switch base.Kind {
	case stream.KindEnd:
		x.State = StateEnded
	case stream.KindImport:
		x.State = StateImported
	}
	x.partitions(f, m)
	x.Windowed = windowed(base, f)
	x.waiting(f, m)
	if x.State != StateRunning {
		return x
	}
	x.held(f, base, &merger)
	return x
}

// partitions judges every row of the roster.
func (x *Explanation) partitions(f *Facts, m *stream.MergerEntry) {
	for i := range m.Roster {
		row := &m.Roster[i]
		v := f.verdict(row.Name)
		v.Watermark = stream.CountsWith(row, f.Logs[row.Name].Base)
		if v.Position == (stream.Position{}) {
			v.Position = row.From
		}
		switch b := f.Logs[row.Name].Base; {
		case v.Reason == ReasonDamaged:
		case row.Ended:
			v.Reason, v.Text, v.Do = ReasonEnded, "it was read to its end", ""
			if b != nil && b.Lost {
				v.Text = "it vanished from the source before it was read to its end: what it still held is lost"
			}
		case b != nil && b.Watermark == stream.EndOfTime:
			x.uncounted(f, m, b, &v)
		case v.Watermark.Finite() && v.Watermark.Time().After(f.Now.Add(future)) && v.Reason.well():
			v.Reason = ReasonFuture
			v.Text = fmt.Sprintf("its watermark %s is %s ahead of this machine's clock: a record of that time was taken, here or in a partition whose watermark it follows, so that its reader's clock is ahead or this one behind; its records before that watermark are late",
				v.Watermark, span(v.Watermark.Time().Sub(f.Now)))
			v.Do = "compare the clocks of the instances, and correct the one that is wrong"
		}
		x.Verdicts = append(x.Verdicts, v)
	}
}

// future is how far ahead of the clock a record's time may be.
const future = time.Minute

// uncounted judges a partition that was read to its end and whose children are not all in the roster.
func (x *Explanation) uncounted(f *Facts, m *stream.MergerEntry, b *stream.Entry, v *Verdict) {
	if b.Kind != stream.KindEnd { // the end itself is still to be written, by the owner or the next one
		if v.Reason.well() {
			v.Reason, v.Text = ReasonUncounted, "it was read to its end, which is being saved"
		}
		return
	}
	v.Do = ""
	rostered := func(name string) *stream.RosterRow {
		i := slices.IndexFunc(m.Roster, func(r stream.RosterRow) bool { return r.Name == name })
		if i < 0 {
			return nil
		}
		return &m.Roster[i]
	}
	var waits []string
	for _, c := range b.Children {
		if rostered(c.Name) != nil {
			continue
		}
		for _, p := range c.Parents {
			row, t := rostered(p), f.Logs[p]
			ended := row != nil && row.Done || t.Base != nil && t.Base.Kind == stream.KindEnd
			if p == v.Partition || row == nil || ended {
				continue
			}
			v.Do = "see that " + p + " is read to its end"
			waits = append(waits, fmt.Sprintf("its child %s also continues %s, which is not read to its end", c.Name, p))
		}
	}
	if len(waits) == 0 {
		v.Reason, v.Text = ReasonUncounted, "it was read to its end; the merger has still to admit its children"
		return
	}
	v.Reason, v.Text = ReasonChildren, "it was read to its end; "+strings.Join(waits, "; ")
}

// verdict judges one log by its end and its owner's heartbeat.
func (f *Facts) verdict(partition string) Verdict {
	t := f.Logs[partition]
	v := Verdict{Partition: partition, Watermark: stream.Beginning, Lag: -1, Age: -1}
	if b := t.Base; b != nil {
		v.Watermark = b.Watermark
		if partition != stream.MergerPartition {
			v.Position = b.Position
		}
		if b.Kind == stream.KindEnd {
			v.Reason, v.Text = ReasonEnded, "it has ended"
			return v
		}
	}
	if t.Damaged != "" {
		v.Reason, v.Text = ReasonDamaged, "its log cannot be read: "+t.Damaged
		v.Do = "restore the object, from the bucket's versions or a backup: to delete it, or move it away, loses what it holds and does not help; or start again with `millstream checkpoints reset` or a new --name"
		return v
	}
	v.Owner = t.owner()
	owner := f.member(v.Owner)
	if owner != nil {
		v.Age = f.Now.Sub(owner.Clock)
	}
	failed := f.failure(partition)
	switch {
	case t.Claims >= loops || failed != nil:
		f.crashLoop(&v, t, failed)
	case t.Newest == nil:
		v.Reason, v.Text = ReasonNeverRead, "nobody has claimed it yet"
		v.Do = f.someone("claims it by itself")
	case v.Owner == "":
		v.Reason, v.Text = ReasonUnowned, "nobody owns it: "+map[stream.Kind]string{stream.KindRelease: "its owner " + t.Newest.Owner + " has let it go",
			stream.KindReset: "it was reset", stream.KindImport: "it was imported and not claimed since"}[t.Newest.Kind]
		v.Do = f.someone("claims it by itself within seconds")
	case owner == nil:
		v.Reason, v.Text = ReasonDead, fmt.Sprintf("its owner %s has no heartbeat file; others may take the partition over after they have seen that for a lease (%s)", v.Owner, span(f.Lease))
		v.Do = f.someone("takes it over by itself")
	case !owner.Alive:
		f.dead(&v, owner)
	default:
		f.alive(&v, owner, partition)
	}
	return v
}

// loops is from how many claims without a checkpoint we speak of a loop: A2 backs off from there.
const loops = 3

func (f *Facts) crashLoop(v *Verdict, t Tail, failed *Failure) {
	v.Reason = ReasonCrashLoop
	switch {
	case t.Claims >= walkBack:
		v.Text = fmt.Sprintf("it was claimed %d times or more without a checkpoint since", t.Claims)
	case t.Claims >= loops:
		v.Text = fmt.Sprintf("it was claimed %d times without a checkpoint since", t.Claims)
	default:
		v.Text = "it has failed and is tried again"
	}
	if failed == nil {
		v.Text += "; the last error is unknown: no heartbeat tells it"
		v.Do = "look at the log of the process that claimed it last, " + t.Newest.Owner
		return
	}
	v.Text += fmt.Sprintf("; the last error, %s ago: %s", span(f.Now.Sub(failed.At)), failed.Error)
	v.Do = "mend what the error says; the partition is tried again by itself, at most 30 s apart"
}

func (f *Facts) dead(v *Verdict, owner *Member) {
	v.Reason = ReasonDead
	age := f.Now.Sub(owner.Clock)
	if age < 0 {
		v.Text = fmt.Sprintf("its owner %s has written no heartbeat while we watched for half a lease, though its last one bears a time %s ahead of this machine's clock", v.Owner, span(-age))
	} else {
		v.Text = fmt.Sprintf("its owner %s is silent: its last heartbeat is %s old", v.Owner, span(age))
	}
	v.Text += fmt.Sprintf("; others may take the partition over once they have seen it stand still for a lease (%s)", span(f.Lease))
	v.Do = f.someone("takes it over by itself")
}

// someone says who acts.
func (f *Facts) someone(does string) string {
	switch n := f.living(); n {
	case 0:
		return "start an instance: none lives"
	case 1:
		return "nothing: the instance that lives " + does + ". If it does not within a minute, look at its log"
	default:
		return fmt.Sprintf("nothing: one of the %d instances that live %s. If none does within a minute, look at their logs", n, does)
	}
}

func (f *Facts) alive(v *Verdict, owner *Member, partition string) {
	s, ok := owner.Partitions[partition]
	now := f.Now
	if d := f.Now.Sub(owner.Clock); d > f.Lease || d < -f.Lease {
		now = owner.Clock // times of the owner's heartbeat are of another clock
	}
	merger := partition == stream.MergerPartition
	if ok && !merger && s.LastArrived != 0 {
		if v.Lag = max(now.Sub(s.LastArrived.Time()), 0); s.State == stream.CaughtUp {
			v.Lag = 0
		}
	}
	behind := ""
	if v.Lag > 0 {
		behind = fmt.Sprintf("; the newest record that it has read arrived %s ago", span(v.Lag))
	}
	switch {
	case now.Equal(f.Now) && v.Age > f.Lease/2:
		v.Reason, v.Text = ReasonSilent, fmt.Sprintf("its owner %s has written no heartbeat for %s: it stops by itself after half a lease, and others may take the partition over in %s", v.Owner, span(v.Age), span(f.Lease-v.Age))
		v.Do = "look again in a moment"
	case !ok:
		v.Reason, v.Text = ReasonStarting, "its owner "+v.Owner+" lives, and its last heartbeat does not mention it"
	case s.Error != "":
		v.Reason, v.Text = ReasonStuck, fmt.Sprintf("its owner %s cannot go on, and tries again: %s", v.Owner, s.Error)
		v.Do = "mend what the error says; it goes on by itself"
	case merger:
		v.Reason, v.Text = ReasonMerging, "its owner "+v.Owner+" lives and reports no trouble"
	case s.State == stream.Throttled:
		v.Reason, v.Text = ReasonThrottled, "the source refuses to be read faster"+behind+"; it does not count as idle meanwhile"
		v.Do = "raise the source's limits (shards, throughput units), or read it with fewer programs"
	case s.State == stream.Paused:
		v.Reason, v.Text = ReasonPaused, "reading is held back on our side"+behind+"; it does not count as idle meanwhile"
		v.Do = "look at the log of " + v.Owner
	case s.Idle:
		v.Reason, v.Text = ReasonIdle, "it is idle: nothing new came for --idle-after, and it follows the other partitions' watermarks"
	case s.State == stream.CaughtUp && s.IdleAt.IsZero():
		v.Reason, v.Text = ReasonQuiet, "it has read all there is; when it counts as idle is unknown"
	case s.State == stream.CaughtUp && s.IdleAt.After(now):
		v.Reason, v.Text = ReasonQuiet, fmt.Sprintf("it has read all there is; if nothing comes it counts as idle in %s, and holds nothing back from then on", span(s.IdleAt.Sub(now)))
	case s.State == stream.CaughtUp:
		v.Reason, v.Text = ReasonQuiet, "it has read all there is, and counts as idle with its next heartbeat if nothing comes"
	default:
		v.Reason, v.Text = ReasonReading, "it is being read by "+v.Owner+behind
	}
}

// clocks finds members whose clocks are far from ours though they live.
func (x *Explanation) clocks(f *Facts) {
	for _, m := range f.Members {
		d := m.Clock.Sub(f.Now)
		if !m.Alive || d <= f.Lease && d >= -f.Lease {
			continue
		}
		word := "ahead of"
		if d < 0 {
			d, word = -d, "behind"
		}
		x.Clocks = append(x.Clocks, fmt.Sprintf("the clock of %s is %s %s this machine's", m.ID, span(d), word))
	}
}

// last says when somebody was last alive.
func (x *Explanation) last(f *Facts) {
	if x.Live > 0 {
		return
	}
	x.Last = "no heartbeat file is left"
	var newest time.Time
	for _, m := range f.Members {
		if newest.Before(m.Clock) {
			newest = m.Clock
			x.Last = fmt.Sprintf("the newest heartbeat, of %s, is %s old", m.ID, span(f.Now.Sub(m.Clock)))
			if m.Clock.After(f.Now) {
				x.Last = fmt.Sprintf("the newest heartbeat, of %s, did not change while we watched", m.ID)
			}
		}
	}
}

// held finds who holds the frontier back: the merger when it is not well, or has not come to it yet.
func (x *Explanation) held(f *Facts, base *stream.Entry, merger *Verdict) {
	m := base.Merger
	hold := stream.HeldBy(m, func(p string) *stream.Entry { return f.Logs[p].Base })
	width := slice(base.Plan)
	if !merger.Reason.well() && !(x.Live == 0 && merger.Reason.absent()) || hold.Partition == "" || width > 0 && hold.Watermark.Floor(width) > m.Frontier {
		x.HeldBy = stream.MergerPartition
		return
	}
	x.HeldBy = hold.Partition
	by, since := m.HeldBy, m.HeldSince
	if owner := f.member(f.Logs[stream.MergerPartition].owner()); owner != nil { // newer than its entry
		if s := owner.Partitions[stream.MergerPartition]; s.HeldBy != "" {
			by, since = s.HeldBy, s.HeldSince
		}
	}
	if by == hold.Partition {
		x.Since = since
	}
}

// waiting adds up what is frozen beyond the frontier.
func (x *Explanation) waiting(f *Facts, m *stream.MergerEntry) {
	w := &x.Waiting
	ends := make(map[stream.Instant]bool)
	for i := range m.Roster {
		b := f.Logs[m.Roster[i].Name].Base
		if b == nil {
			continue
		}
		for _, s := range b.Frozen {
			if s.End <= m.Frontier {
				continue
			}
			if len(ends) == 0 || s.Start < w.From {
				w.From = s.Start
			}
			ends[s.End] = true
			w.To, w.Records, w.Slices = max(w.To, s.End), w.Records+s.Count, w.Slices+1
		}
	}
	for i := range f.Members {
		if f.Members[i].Alive {
			for _, s := range f.Members[i].Partitions {
				w.Open = max(w.Open, s.OpenWindows)
			}
		}
	}
}

// windowed reports whether the pipeline has windows: its plan names them, or its saved state shows them.
func windowed(base *stream.Entry, f *Facts) bool {
	if windows(base.Plan) != "" || base.Merger.Frontier.Finite() {
		return true
	}
	for _, t := range f.Logs {
		if t.Base != nil && len(t.Base.Frozen) > 0 {
			return true
		}
	}
	return false
}

// windows is the plan's setting, such as tumbling:1m; empty: none, or it does not say.
func windows(p stream.Plan) string {
	for _, s := range p {
		if (s.Name == "--window" || s.Name == "Windows") && s.Value != "none" {
			return s.Value
		}
	}
	return ""
}

// slice is the width of the slices that a plan's windows are made of; 0: unknown.
func slice(p stream.Plan) time.Duration {
	_, sizes, _ := strings.Cut(windows(p), ":")
	var width time.Duration
	for _, size := range strings.Split(sizes, "/") {
		d, err := time.ParseDuration(size)
		if err != nil || d <= 0 {
			return 0
		}
		for a, b := width, d; ; a, b = b, a%b {
			if width = a; b == 0 {
				break
			}
		}
	}
	return width
}

// span prints a duration as a person would say it.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
