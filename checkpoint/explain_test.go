package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func instant(d time.Duration) stream.Instant { return stream.Instant(noon.Add(d).UnixNano()) }

// scene is a pipeline of two partitions under one living member, in which nothing is wrong: windows are
// out up to 11:58, a has got to 11:59:30, b to 11:58:20.
func scene() *Facts {
	owned := func(number uint64, watermark time.Duration) Tail {
		e := &stream.Entry{Number: number, Kind: stream.KindCheckpoint, Owner: "m1", Watermark: instant(watermark), Position: stream.Position{Number: 7}}
		return Tail{Newest: e, Base: e}
	}
	merger := owned(9, -2*time.Minute)
	merger.Base.Plan = stream.Plan{{Name: "--window", Value: "tumbling:1m"}}
	merger.Base.Merger = &stream.MergerEntry{Frontier: instant(-2 * time.Minute), HeldBy: "b", HeldSince: noon.Add(-90 * time.Second),
		Roster: []stream.RosterRow{{Partition: stream.Partition{Name: "a"}, Start: stream.Beginning}, {Partition: stream.Partition{Name: "b"}, Start: stream.Beginning}}}
	a, b := owned(4, -30*time.Second), owned(5, -100*time.Second)
	a.Base.Frozen = []stream.Frozen{{Start: instant(-2 * time.Minute), End: instant(-time.Minute), Count: 40}}
	status := func() stream.Status { return stream.Status{LastArrived: instant(-10 * time.Second), OpenWindows: 2} }
	return &Facts{Now: noon, Lease: 15 * time.Second, Logs: map[string]Tail{stream.MergerPartition: merger, "a": a, "b": b},
		Members: []Member{{ID: "m1", Clock: noon.Add(-2 * time.Second), Alive: true,
			Partitions: map[string]stream.Status{stream.MergerPartition: {}, "a": status(), "b": status()}}}}
}

// says changes what the heartbeat says of b.
func says(s stream.Status) func(*Facts) {
	return func(f *Facts) { f.Members[0].Partitions["b"] = s }
}

// tailed changes the end of b's log.
func tailed(change func(t *Tail)) func(*Facts) {
	return func(f *Facts) { t := f.Logs["b"]; change(&t); f.Logs["b"] = t }
}

func claims(times int) func(t *Tail) {
	return func(t *Tail) {
		t.Newest, t.Claims = &stream.Entry{Number: 5 + uint64(times), Kind: stream.KindClaim, Owner: "m1"}, times
	}
}

// dead makes the member silent for so long.
func dead(age time.Duration) func(*Facts) {
	return func(f *Facts) { f.Members[0].Alive, f.Members[0].Clock = false, noon.Add(-age) }
}

func all(changes ...func(*Facts)) func(*Facts) {
	return func(f *Facts) {
		for _, c := range changes {
			c(f)
		}
	}
}

func second(f *Facts) {
	f.Members = append(f.Members, Member{ID: "m2", Clock: noon.Add(-time.Second), Alive: true})
}

// Every verdict, told of the partition that holds the frontier back: what is said of it, and what it must
// not say.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	never := "claims it by itself"
	for _, c := range []struct {
		name   string
		change func(*Facts)
		reason Reason
		says   []string
		not    []string
	}{
		{"reading", nil, ReasonReading, []string{"windows that end by 2026-01-02T11:58:00Z are out (2m0s behind the clock)", "The next ones wait for partition b, whose watermark is 2026-01-02T11:58:20Z, since 2026-01-02T11:58:30Z (1m30s)",
			"It is being read by m1; the newest record that it has read arrived 10s ago", "Waiting: 40 records in windows from 2026-01-02T11:58:00Z to 2026-01-02T11:59:00Z", "still take records: 2 at most"}, []string{"To do", "unknown"}},
		{"throttled", says(stream.Status{State: stream.Throttled, LastArrived: instant(-time.Hour)}), ReasonThrottled, []string{"the source refuses to be read faster; the newest record that it has read arrived 1h0m ago; it does not count as idle", "To do: raise the source's limits"}, nil},
		{"paused", says(stream.Status{State: stream.Paused}), ReasonPaused, []string{"held back on our side; it does not count as idle", "To do: look at the log of m1"}, []string{"arrived"}},
		{"idle", says(stream.Status{State: stream.CaughtUp, Idle: true}), ReasonIdle, []string{"it is idle: nothing new came for --idle-after"}, []string{"To do"}},
		{"idle soon", says(stream.Status{State: stream.CaughtUp, IdleAt: noon.Add(40 * time.Second)}), ReasonQuiet, []string{"if nothing comes it counts as idle in 40s"}, []string{"To do"}},
		{"idle now", says(stream.Status{State: stream.CaughtUp, IdleAt: noon.Add(-time.Second)}), ReasonQuiet, []string{"counts as idle with its next heartbeat"}, nil},
		{"idle, when is not told", says(stream.Status{State: stream.CaughtUp}), ReasonQuiet, []string{"when it counts as idle is unknown"}, nil},
		{"stuck on a sink", says(stream.Status{Error: "deliver: no space\nleft on device."}), ReasonStuck, []string{"its owner m1 cannot go on, and tries again: deliver: no space left on device. To do: mend what the error says"}, nil},
		{"starting", func(f *Facts) { delete(f.Members[0].Partitions, "b") }, ReasonStarting, []string{"does not mention it"}, []string{"To do"}},
		{"never read, nobody lives", all(dead(time.Hour), func(f *Facts) { delete(f.Logs, "b") }), ReasonNeverRead, []string{"whose watermark has not begun", "nobody has claimed it yet. To do: start an instance: none lives"}, nil},
		{"never read", func(f *Facts) { delete(f.Logs, "b") }, ReasonNeverRead, []string{"nobody has claimed it yet. To do: nothing: the instance that lives " + never}, nil},
		{"never read, two live", all(second, func(f *Facts) { delete(f.Logs, "b") }), ReasonNeverRead, []string{"one of the 2 instances that live " + never}, nil},
		{"unowned", tailed(func(t *Tail) { t.Newest = &stream.Entry{Number: 6, Kind: stream.KindRelease, Owner: "m0"} }), ReasonUnowned, []string{"nobody owns it: its owner m0 has let it go"}, nil},
		{"reset", tailed(func(t *Tail) {
			t.Newest = &stream.Entry{Number: 6, Kind: stream.KindReset, Watermark: stream.Beginning}
			t.Base = t.Newest
		}), ReasonUnowned, []string{"it was reset"}, nil},
		{"owner without a heartbeat", tailed(func(t *Tail) { claims(1)(t); t.Newest.Owner = "m0" }), ReasonDead, []string{"its owner m0 has no heartbeat file; others may take the partition over after they have seen that for a lease (15s)", "the instance that lives takes it over"}, nil},
		{"owner dead", all(second, func(f *Facts) {
			f.Members[0].Alive, f.Members[0].Clock = false, noon.Add(-3*time.Minute)
			m := f.Logs[stream.MergerPartition]
			m.Newest.Owner = "m2"
		}), ReasonDead, []string{"its owner m1 is silent: its last heartbeat is 3m0s old; others may take the partition over once they have seen it stand still for a lease (15s). To do: nothing: the instance that lives takes it over"}, nil},
		{"owner dead, clock ahead", all(second, dead(-time.Hour), func(f *Facts) { f.Logs[stream.MergerPartition].Newest.Owner = "m2" }), ReasonDead,
			[]string{"has written no heartbeat while we watched for half a lease, though its last one bears a time 1h0m ahead"}, []string{"old"}},
		{"silent for half a lease", all(second, func(f *Facts) {
			f.Members[0].Clock = noon.Add(-9 * time.Second)
			f.Logs[stream.MergerPartition].Newest.Owner = "m2"
		}), ReasonSilent, []string{"its owner m1 has written no heartbeat for 9s: it stops by itself after half a lease, and others may take the partition over in 6s"}, nil},
		{"crash loop, last error", all(tailed(claims(3)), func(f *Facts) {
			f.Members[0].Failed = map[string]Failure{"b": {Error: "process: panic: index out of range", At: noon.Add(-4 * time.Second), Newest: 8}}
		}), ReasonCrashLoop, []string{"it was claimed 3 times without a checkpoint since; the last error, 4s ago: process: panic: index out of range. To do: mend"}, []string{"unknown"}},
		{"crash loop, of the whole process", tailed(claims(4)), ReasonCrashLoop, []string{"it was claimed 4 times", "the last error is unknown", "look at the log of the process that claimed it last, m1"}, nil},
		{"crash loop, for ever", tailed(claims(16)), ReasonCrashLoop, []string{"claimed 16 times or more"}, nil},
		{"failed once", all(tailed(claims(1)), func(f *Facts) {
			f.Members[0].Failed = map[string]Failure{"b": {Error: "expired", At: noon.Add(-4 * time.Second), Newest: 6}}
		}), ReasonCrashLoop, []string{"it has failed and is tried again; the last error, 4s ago: expired"}, []string{"claimed"}},
		{"failed, and came forward since", func(f *Facts) { f.Members[0].Failed = map[string]Failure{"b": {Error: "expired", Newest: 4}} }, ReasonReading, nil, []string{"expired"}},
		{"two claims are no loop", tailed(claims(2)), ReasonReading, nil, []string{"claimed"}},
		{"damaged", func(f *Facts) { f.Logs["b"] = Tail{Damaged: "object b/1 is damaged: checksum does not match"} }, ReasonDamaged, []string{"wait for partition b, since 2026-01-02T11:58:30Z (1m30s). Why: its log cannot be read: object b/1 is damaged", "To do: restore the object"}, []string{"watermark has not begun"}},
		{"ended, the other parent is not", tailed(func(t *Tail) {
			t.Base = &stream.Entry{Number: 6, Kind: stream.KindEnd, Watermark: stream.EndOfTime, LastWatermark: instant(-100 * time.Second),
				Children: []stream.Partition{{Name: "c", Parents: []string{"a", "b"}}}}
			t.Newest = t.Base
		}), ReasonChildren, []string{"whose watermark is 2026-01-02T11:58:20Z", "it was read to its end; its child c also continues a, which is not read to its end. To do: see that a is read to its end"}, nil},
		{"ended, its children are about to be counted", tailed(func(t *Tail) {
			t.Base = &stream.Entry{Number: 6, Kind: stream.KindEnd, Watermark: stream.EndOfTime, LastWatermark: instant(-100 * time.Second), Children: []stream.Partition{{Name: "c", Parents: []string{"b"}}}}
			t.Newest = t.Base
		}), ReasonUncounted, []string{"the merger has still to admit its children"}, []string{"To do"}},
		{"ending", tailed(func(t *Tail) { t.Base.Watermark, t.Base.LastWatermark = stream.EndOfTime, instant(-100*time.Second) }), ReasonUncounted, []string{"which is being saved"}, nil},
		{"ending, and its owner is gone", all(second, dead(time.Hour), func(f *Facts) { f.Logs[stream.MergerPartition].Newest.Owner = "m2" },
			tailed(func(t *Tail) { t.Base.Watermark, t.Base.LastWatermark = stream.EndOfTime, instant(-100*time.Second) })), ReasonDead, []string{"its owner m1 is silent"}, nil},
		{"nobody knows since when", func(f *Facts) { f.Logs[stream.MergerPartition].Base.Merger.HeldBy = "a" }, ReasonReading, []string{"11:58:20Z. Why"}, []string{"since"}},
		{"since, from the merger's heartbeat", func(f *Facts) {
			f.Logs[stream.MergerPartition].Base.Merger.HeldBy = "a"
			f.Members[0].Partitions[stream.MergerPartition] = stream.Status{HeldBy: "b", HeldSince: noon.Add(-time.Minute)}
		}, ReasonReading, []string{"since 2026-01-02T11:59:00Z (1m0s)"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := scene()
			if c.change != nil {
				c.change(f)
			}
			x := Explain(f)
			text := x.Paragraph("p")
			t.Log(text)
			v := x.verdict("b")
			if v == nil || v.Reason != c.reason || x.HeldBy != "b" {
				t.Errorf("held by %q: %+v", x.HeldBy, v)
			}
			for _, s := range c.says {
				if !strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
					t.Errorf("does not say %q", s)
				}
			}
			for _, s := range c.not {
				if strings.Contains(text, s) {
					t.Errorf("says %q", s)
				}
			}
			if strings.Contains(text, "\n") || strings.Contains(text, "..") {
				t.Error("is not one paragraph of sentences")
			}
		})
	}
}

// The pipeline as a whole, and the merger.
func TestExplanations(t *testing.T) {
	t.Parallel()
	merger := func(change func(t *Tail)) func(*Facts) {
		return func(f *Facts) {
			t := f.Logs[stream.MergerPartition]
			change(&t)
			f.Logs[stream.MergerPartition] = t
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Facts)
		state  State
		held   string
		says   []string
		not    []string
	}{
		{"nothing", func(f *Facts) { *f = Facts{Now: noon, Lease: f.Lease} }, StateNone, "", []string{`Pipeline "p" has no saved state`}, nil},
		{"ended", merger(func(t *Tail) {
			t.Newest = &stream.Entry{Number: 10, Kind: stream.KindEnd, Merger: t.Base.Merger}
			t.Base = t.Newest
		}), StateEnded, "", []string{"has ended: every window is out, and nothing waits"}, []string{"partition"}},
		{"begun", func(f *Facts) {
			f.Logs = map[string]Tail{stream.MergerPartition: {Newest: &stream.Entry{Number: 1, Kind: stream.KindClaim, Owner: "m1"}, Claims: 1}}
		}, StateBegun, stream.MergerPartition, []string{"has no roster yet", "its owner m1 lives"}, nil},
		{"reset", merger(func(t *Tail) { t.Newest = &stream.Entry{Number: 10, Kind: stream.KindReset}; t.Base = t.Newest }), StateReset, stream.MergerPartition,
			[]string{"was reset", "nobody owns it"}, nil},
		{"reset, and a partition's log is damaged", all(merger(func(t *Tail) { t.Newest = &stream.Entry{Number: 10, Kind: stream.KindReset}; t.Base = t.Newest }), func(f *Facts) {
			f.Logs["b"] = Tail{Damaged: "object b/7 is damaged: checksum does not match"}
		}), StateReset, stream.MergerPartition, []string{"was reset", "Partition b is damaged: its log cannot be read: object b/7", "To do: restore the object, from the bucket's versions"}, []string{"Partition a"}},
		{"ended, and a log that no roster names is damaged", all(merger(func(t *Tail) {
			t.Newest = &stream.Entry{Number: 10, Kind: stream.KindEnd, Merger: t.Base.Merger}
			t.Base = t.Newest
		}), func(f *Facts) { f.Logs["old"] = Tail{Damaged: "object old/7 is damaged: checksum does not match"} }), StateEnded, "",
			[]string{"has ended", "Partition old is damaged"}, nil},
		{"running, and a log that no roster names is damaged", func(f *Facts) { f.Logs["old"] = Tail{Damaged: "object old/7 is damaged"} }, StateRunning, "b",
			[]string{"wait for partition b", "Partition old is damaged"}, nil},
		{"the merger's log is damaged, and another", func(f *Facts) {
			f.Logs[stream.MergerPartition] = Tail{Damaged: "object _merger/9 is damaged"}
			f.Logs["b"] = Tail{Damaged: "object b/7 is damaged"}
		}, StateUnknown, stream.MergerPartition, []string{"object _merger/9", "Partition b is damaged"}, nil},
		{"imported", func(f *Facts) {
			e := &stream.Entry{Number: 1, Kind: stream.KindImport, Merger: &stream.MergerEntry{Frontier: stream.Beginning, Imported: &stream.Imported{From: "kcl://t"},
				Roster: []stream.RosterRow{{Partition: stream.Partition{Name: "a"}, From: stream.Position{Number: 4}}}}}
			f.Logs, f.Members = map[string]Tail{stream.MergerPartition: {Newest: e, Base: e}}, nil
		}, StateImported, "", []string{`was imported from kcl://t and was never run. To do: start it`}, nil},
		{"the merger's log is damaged", func(f *Facts) {
			f.Logs[stream.MergerPartition] = Tail{Damaged: "object _merger/9 is damaged: checksum does not match"}
		}, StateUnknown, stream.MergerPartition, []string{"is unknown: the merger stops. Why: its log cannot be read: object _merger/9 is damaged", "To do: restore"}, []string{"no roster"}},
		{"everything is down", dead(2 * time.Hour), StateRunning, "b", []string{"No instance lives: the newest heartbeat, of m1, is 2h0m old. To do: start one",
			"The next ones wait for partition b", "Why: its owner m1 is silent", "To do: start an instance: none lives", "Waiting: 40 records"}, []string{"Partition a"}},
		{"everything is gone", func(f *Facts) { f.Members = nil }, StateRunning, "b", []string{"No instance lives: no heartbeat file is left", "Why: its owner m1 has no heartbeat file"}, nil},
		{"everything has left well", func(f *Facts) {
			f.Members = nil
			for p, t := range f.Logs {
				t.Newest = &stream.Entry{Number: 20, Kind: stream.KindRelease, Owner: "m1"}
				f.Logs[p] = t
			}
		}, StateRunning, "b", []string{"No instance lives: no heartbeat file is left", "nobody owns it: its owner m1 has let it go. To do: start an instance"}, nil},
		{"only the merger is down", func(f *Facts) {
			second(f)
			f.Logs[stream.MergerPartition] = Tail{Newest: &stream.Entry{Number: 10, Kind: stream.KindClaim, Owner: "m0"}, Base: f.Logs[stream.MergerPartition].Base, Claims: 1}
		}, StateRunning, stream.MergerPartition, []string{"wait for the merger. Why: its owner m0 has no heartbeat file"}, []string{"partition b"}},
		{"the merger is stuck", func(f *Facts) {
			f.Members[0].Partitions[stream.MergerPartition] = stream.Status{Error: "deliver: access denied"}
		}, StateRunning, stream.MergerPartition,
			[]string{"wait for the merger. Why: its owner m1 cannot go on, and tries again: deliver: access denied"}, []string{"partition b"}},
		{"the merger is behind", tailed(func(t *Tail) { t.Base.Watermark = instant(-30 * time.Second) }), StateRunning, stream.MergerPartition,
			[]string{"The partitions are past that: the merger has only to merge"}, []string{"To do"}},
		{"the merger crashes", merger(func(t *Tail) {
			t.Newest, t.Claims = &stream.Entry{Number: 14, Kind: stream.KindClaim, Owner: "m1"}, 5
		}), StateRunning, stream.MergerPartition, []string{"wait for the merger", "claimed 5 times"}, nil},
		{"no window is out", func(f *Facts) {
			f.Logs[stream.MergerPartition].Base.Merger.Frontier = stream.Beginning
			delete(f.Logs, "b")
		}, StateRunning, "b",
			[]string{"no window is out yet", "wait for partition b, whose watermark has not begun"}, nil},
		{"no windows", func(f *Facts) {
			b := f.Logs[stream.MergerPartition].Base
			b.Plan, b.Merger.Frontier, f.Logs["a"].Base.Frozen = stream.Plan{{Name: "--source", Value: "x"}}, stream.Beginning, nil
		}, StateRunning, "b", []string{"shows no windows", "No partition is in trouble"}, []string{"wait for partition"}},
		{"no windows, one in trouble", func(f *Facts) {
			b := f.Logs[stream.MergerPartition].Base
			b.Plan, b.Merger.Frontier, f.Logs["a"].Base.Frozen = stream.Plan{{Name: "--source", Value: "x"}}, stream.Beginning, nil
			says(stream.Status{State: stream.Throttled})(f)
		}, StateRunning, "b", []string{"Partition b is throttled"}, []string{"No partition is in trouble"}},
		{"another is in trouble too", func(f *Facts) { f.Members[0].Partitions["a"] = stream.Status{Error: "deliver: full"} }, StateRunning, "b", []string{"wait for partition b", "Partition a is stuck: "}, nil},
		{"a clock is ahead", func(f *Facts) { f.Members[0].Clock = noon.Add(time.Hour) }, StateRunning, "b", []string{"The clock of m1 is 1h0m ahead of this machine's: correct it"}, nil},
		{"a clock is behind", func(f *Facts) { f.Members[0].Clock = noon.Add(-time.Hour) }, StateRunning, "b", []string{"The clock of m1 is 1h0m behind this machine's"}, nil},
		{"idle by its own clock", func(f *Facts) {
			f.Members[0].Clock = noon.Add(-time.Hour)
			says(stream.Status{State: stream.CaughtUp, IdleAt: noon.Add(-time.Hour + 20*time.Second)})(f)
		}, StateRunning, "b", []string{"counts as idle in 20s"}, nil},
		{"a watermark of the future", func(f *Facts) { f.Logs["a"].Base.Watermark = instant(time.Hour) }, StateRunning, "b",
			[]string{"Partition a is clock far ahead: its watermark 2026-01-02T13:00:00Z is 1h0m ahead of this machine's clock", "compare the clocks"}, nil},
		{"lost", func(f *Facts) {
			f.Logs["a"].Base.Kind, f.Logs["a"].Base.Watermark, f.Logs["a"].Base.Lost = stream.KindEnd, stream.EndOfTime, true
			f.Logs[stream.MergerPartition].Base.Merger.Roster[0].Ended = true
		}, StateRunning, "b", nil, nil},
		{"imported partitions that were done hold nothing", func(f *Facts) {
			m := f.Logs[stream.MergerPartition].Base.Merger
			m.Imported = &stream.Imported{From: "kcl://t"}
			m.Roster = append(m.Roster, stream.RosterRow{Partition: stream.Partition{Name: "z"}, Start: stream.Beginning, Ended: true, Done: true})
		}, StateRunning, "b", nil, []string{"partition z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := scene()
			c.change(f)
			x := Explain(f)
			text := x.Paragraph("p")
			t.Log(text)
			if x.State != c.state || x.HeldBy != c.held {
				t.Errorf("state %q, held by %q", x.State, x.HeldBy)
			}
			for _, s := range c.says {
				if !strings.Contains(text, s) {
					t.Errorf("does not say %q", s)
				}
			}
			for _, s := range c.not {
				if strings.Contains(text, s) {
					t.Errorf("says %q", s)
				}
			}
		})
	}
	f := scene()
	f.Logs["a"].Base.Kind, f.Logs["a"].Base.Watermark, f.Logs["a"].Base.Lost = stream.KindEnd, stream.EndOfTime, true
	f.Logs[stream.MergerPartition].Base.Merger.Roster[0].Ended = true
	if v := Explain(f).verdict("a"); v.Reason != ReasonEnded || !strings.Contains(v.Text, "vanished from the source") {
		t.Errorf("a lost partition is %+v", v)
	}
}

func TestSlice(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{"tumbling:1m": time.Minute, "hopping:1m/10s": 10 * time.Second, "hopping:1m/45s": 15 * time.Second, "session:30s": 30 * time.Second, "none": 0, "tumbling:x": 0, "": 0} {
		if got := slice(stream.Plan{{Name: "--window", Value: value}}); got != want {
			t.Errorf("%q has slices of %s, want %s", value, got, want)
		}
	}
}

// What the bucket tells of real processes: one that fails over and over, one whose clock is fine, and
// one that was killed.
func TestFacts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		s := open(t, config(b))
		w := newWorker(s, "a", "b")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Group().Run(ctx, w.src, func(a *stream.Assignment) error {
				if a.Partition == "b" {
					return errors.New("nothing works here")
				}
				return w.serve(a)
			})
		}()
		<-time.After(time.Minute)
		facts, err := open(t, Config{Bucket: b, Name: "p"}).Facts(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		x := Explain(facts)
		if v := x.verdict("b"); v == nil || v.Reason != ReasonCrashLoop || !strings.Contains(v.Text, "nothing works here") {
			t.Errorf("b is %+v", v)
		}
		if v := x.verdict("a"); v == nil || v.Reason != ReasonReading || v.Owner == "" || v.Age < 0 {
			t.Errorf("a is %+v", v)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A heartbeat that is an hour off is watched: if it moves its member lives, with a wrong clock; if it
// does not it is dead, whatever it says of the time.
func TestFactsWatchOldHeartbeats(t *testing.T) {
	t.Parallel()
	for _, beats := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := bucket.Memory()
			beat := func(n int) {
				if err := b.Put(t.Context(), "p/members/m1", fmt.Appendf(nil, `{"id":"m1","beat":%d,"clock":%q}`, n, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))); err != nil {
					t.Error(err)
				}
			}
			beat(1)
			if beats {
				time.AfterFunc(4*time.Second, func() { beat(2) })
			}
			steady := time.NewTicker(time.Second)
			defer steady.Stop()
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for n := 1; ; n++ {
					if err := b.Put(t.Context(), "p/members/m2", fmt.Appendf(nil, `{"id":"m2","beat":%d,"clock":%q}`, n, time.Now().UTC().Format(time.RFC3339Nano))); err != nil {
						t.Error(err)
					}
					select {
					case <-steady.C:
					case <-stop:
						return
					}
				}
			}()
			synctest.Wait()
			began := time.Now()
			f, err := open(t, Config{Bucket: b, Name: "p"}).Facts(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if m := f.member("m1"); m == nil || m.Alive != beats || time.Since(began) > 8*time.Second {
				t.Errorf("beating %t: %+v after %s", beats, m, time.Since(began))
			}
			if m := f.member("m2"); m == nil || f.Now.Sub(m.Clock) > time.Second {
				t.Errorf("beating %t: the one that was not in doubt is %+v at %s", beats, m, f.Now)
			}
		})
	}
}

// A damaged log is one partition's trouble: everything else is still explained.
func TestFactsDamaged(t *testing.T) {
	t.Parallel()
	b := bucket.Memory()
	s := open(t, config(b))
	if err := s.Import(t.Context(), Import{From: "x", Partitions: []stream.RosterRow{row("a", 1), row("b", 1)}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context(), "p/log/b/00000000000000000001", []byte("rubbish")); err != nil {
		t.Fatal(err)
	}
	f, err := s.Facts(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	x := Explain(f)
	if i := slices.IndexFunc(x.Verdicts, func(v Verdict) bool { return v.Reason == ReasonDamaged }); i < 0 || x.Verdicts[i].Partition != "b" || x.State != StateImported {
		t.Errorf("explained as %+v", x)
	}
}
