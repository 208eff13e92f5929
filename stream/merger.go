package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// listEvery is how often the merger lists the source's partitions.
const listEvery = 10 * time.Second

// merger is the one per pipeline that turns frozen slices into rows. It is leased like a partition
// and writes a log like one; its entries hold the frontier, the roster, its state and its output.
type merger[E, R any] struct {
	p      *Pipeline[E, R]
	a      *Assignment
	c      committer
	state  MergeState[R] // nil without windows
	width  time.Duration
	roster roster
	target Instant
	tip    string
	ledger Ledger
	losses int64
	late   int64
	first  bool // nothing is saved yet
	owes   bool // losses are known that no entry counts yet
	relist bool // an end names children: their other parents may be newer than the listing
	stale  bool // the last listing failed

	newest    map[string]*Entry
	unread    map[string]time.Time // of logs that cannot be read: when that was tried last
	restored  Instant              // the frontier when this merger took over: what lies below is its predecessors' to judge
	listedAt  time.Time
	lastStart time.Time
	lastTook  time.Duration
	heldBy    string
	heldSince time.Time
	toldAt    time.Time
}

func newMerger[E, R any](p *Pipeline[E, R], a *Assignment) *merger[E, R] {
	m := &merger[E, R]{p: p, a: a, newest: make(map[string]*Entry), unread: make(map[string]time.Time), roster: roster{rules: p.rules}}
	m.c = committer{log: a.Log, sinks: p.Sinks, dead: p.DeadLetter, a: a, logger: p.logger(), stuck: m.stuck, rules: p.rules, flush: true}
	return m
}

// run merges until the assignment drains, is lost, or the pipeline has ended.
func (m *merger[E, R]) run() error {
	ctx, cancel := m.a.Context(context.Background())
	defer cancel()
	err := m.live(ctx)
	if err != nil {
		err = fmt.Errorf("merger: %w", err)
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrLeaseLost) {
			m.stuck(err)
			m.c.logger.Error("the merger stops and starts again from its last entry", "error", err)
		}
		return err
	}
	m.a.finish()
	return nil
}

func (m *merger[E, R]) live(ctx context.Context) (err error) {
	defer caught(&err)
	if err := m.restore(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if m.roster.frontier == EndOfTime {
		return m.close(ctx, m.a.Base.Merger) // its owner died between the final checkpoint and the end
	}
	poll := max(m.p.checkpointEvery()/10, 10*time.Millisecond)
	timer := time.NewTimer(poll)
	defer timer.Stop()
	for {
		news := m.a.Log.Changed() // taken before the logs are read, so that nothing slips between
		done, err := m.pass(ctx)
		if done || err != nil {
			return err
		}
		timer.Reset(poll)
		select {
		case <-m.a.Draining:
			return m.leave(ctx)
		default:
		}
		select {
		case <-m.a.Draining:
			return m.leave(ctx)
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave releases the merger.
func (m *merger[E, R]) leave(ctx context.Context) error {
	if m.owes {
		if _, err := m.save(ctx, m.roster.frontier, m.target, false); err != nil {
			return err
		}
	}
	return m.c.save(ctx, &Entry{Kind: KindRelease})
}

// close appends the pipeline's end, which a final checkpoint announces. It carries no output.
func (m *merger[E, R]) close(ctx context.Context, final *MergerEntry) error {
	return m.c.save(ctx, &Entry{Kind: KindEnd, Watermark: EndOfTime, LastWatermark: EndOfTime, Ledger: m.ledger, SinkLosses: m.losses, Merger: final})
}

// pass looks once at the source and at every log, and saves an entry if that moved anything. It
// reports true when the pipeline has ended.
func (m *merger[E, R]) pass(ctx context.Context) (bool, error) {
	for i := range m.roster.rows {
		name := m.roster.rows[i].Name
		if e := m.entryOf(name); e != nil && e.Kind == KindEnd {
			continue // nothing follows it
		}
		if err := m.follow(ctx, name); err != nil {
			return false, err
		}
	}
	if err := m.list(ctx); err != nil { // after the logs: the end of everything wants a listing behind it
		return false, err
	}
	admitted := m.roster.admit(m.entryOf)
	low, who := m.roster.lowest(m.entryOf)
	frontier := max(low.Floor(m.width), m.roster.frontier)
	if m.width == 0 {
		frontier = m.roster.frontier
	}
	ended := m.mayEnd() && m.roster.ended() && !m.stale
	if ended {
		frontier = EndOfTime
	} else if frontier == EndOfTime {
		frontier = m.roster.frontier // a partition is listed that is not in the roster yet
	}
	m.tell(low, who)
	target := m.aim()
	moved := frontier > m.roster.frontier || target.Floor(m.width) > m.target.Floor(m.width)
	if !admitted && !m.first && !moved && !ended && !m.owes {
		return false, nil
	}
	// New partitions wait for their row: they are saved at once. What only moved may wait a little.
	since := time.Since(m.lastStart)
	if !admitted && !m.first && !ended && (since < m.p.checkpointEvery()/10 || since < 5*m.lastTook) {
		return false, nil
	}
	return m.save(ctx, frontier, target, ended)
}

// list refreshes the listing when it is due. A source that cannot be listed now was listed before.
func (m *merger[E, R]) list(ctx context.Context) error {
	if m.first && m.tip == "" {
		tip, err := m.a.Source.Tip(ctx)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		m.tip = tip
	}
	if m.roster.listed != nil && time.Since(m.listedAt) < listEvery && !m.relist && (!m.mayEnd() || m.p.rules.endUnlisted) {
		return nil
	}
	ps, err := m.a.Source.Partitions(ctx)
	m.stale = err != nil
	m.relist = m.relist && m.stale
	m.roster.partial = m.relist
	if err != nil {
		if m.roster.listed == nil {
			return fmt.Errorf("source: %w", err)
		}
		m.c.logger.Warn("the source's partitions cannot be listed: going on with those known", "error", err)
		ps = nil
		for _, p := range m.roster.listed {
			ps = append(ps, p)
		}
	}
	m.roster.list(ps, m.entryOf)
	m.listedAt = time.Now()
	return nil
}

// mayEnd reports whether only the listing stands between here and the pipeline's end.
func (m *merger[E, R]) mayEnd() bool {
	for i := range m.roster.rows {
		if e := m.entryOf(m.roster.rows[i].Name); e == nil || e.Kind != KindEnd {
			return false
		}
	}
	return len(m.roster.rows) > 0
}

// follow reads a partition's newest entry and watches for partials that come too late: a slice at or
// below the frontier that the entry before did not name (M6).
//
// A log that cannot be read is one partition's trouble: it counts with what is known of it, or as one that
// nobody has read, so that its windows wait while the others' partitions are admitted and end.
func (m *merger[E, R]) follow(ctx context.Context, name string) error {
	tried, unread := m.unread[name]
	if unread && time.Since(tried) < listEvery {
		return nil
	}
	e, err := m.a.Log.Newest(ctx, name)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("log of %s: %w", name, err)
	case err != nil:
		m.unread[name] = time.Now()
		m.c.logger.Error("a partition's log cannot be read: its windows wait, and it is tried again", "partition", name, "error", err)
		return nil
	case unread:
		delete(m.unread, name)
		m.c.logger.Info("the partition's log can be read again", "partition", name)
	}
	old := m.newest[name]
	if e == nil || old != nil && old.Number == e.Number {
		return nil
	}
	m.newest[name] = e
	m.relist = m.relist || len(e.Children) > 0
	if old == nil {
		return nil
	}
	for _, f := range e.Frozen {
		if f.End <= m.restored || f.End > m.roster.frontier || slices.ContainsFunc(old.Frozen, func(o Frozen) bool { return o.End == f.End }) {
			continue
		}
		m.late += f.Count
		m.c.logger.Error("a slice was frozen after the frontier had passed it: its records are missing from a row already out. This is a fault of Millstream; please report it",
			"partition", name, "entry", e.Number, "slice_end", f.End.String(), "records", f.Count)
	}
	return nil
}

// entryOf returns the newest restorable entry of a partition. What had ended before an import has no
// log, and an end all the same.
func (m *merger[E, R]) entryOf(partition string) *Entry {
	if e := m.newest[partition]; e != nil {
		return e
	}
	if row := m.roster.find(partition); row != nil && row.Done {
		return row.done()
	}
	return nil
}

// aim computes the idle target.
func (m *merger[E, R]) aim() Instant {
	if m.width == 0 || m.p.OutOfOrder == Unbounded {
		return Beginning
	}
	clock, _ := At(m.a.Log.Clock().Add(-m.p.OutOfOrder - m.p.idleAfter()))
	return max(m.target, m.roster.target(m.entryOf, clock))
}

// save merges what the frontier is about to pass, and takes it through stage, save and commit.
func (m *merger[E, R]) save(ctx context.Context, frontier, target Instant, ended bool) (bool, error) {
	m.lastStart = time.Now()
	e := &Entry{Kind: KindCheckpoint, Watermark: frontier}
	dead, err := m.merge(ctx, e, frontier)
	if err != nil {
		return false, err
	}
	if err := m.c.stage(ctx, e, nil, dead); err != nil {
		return false, err
	}
	m.ledger.RowsOut += e.Rows.Count
	e.Ledger = m.ledger
	e.SinkLosses += m.losses // staging has counted its own
	if m.state != nil && !ended {
		blob, err := m.a.Log.WriteObject(ctx, "snapshot", m.state.Snapshot())
		if err != nil {
			return false, fmt.Errorf("snapshot: %w", err)
		}
		e.Snapshot = []Blob{blob}
	}
	saved := frontier
	if m.p.rules.frontierBehind {
		saved = m.roster.frontier
	}
	m.roster.vouch(m.newest)
	e.Merger = &MergerEntry{Frontier: saved, Target: target, Roster: slices.Clone(m.roster.rows), Tip: m.tip,
		HeldBy: m.heldBy, HeldSince: m.heldSince, LatePartials: m.late, Imported: m.roster.imported}
	if err := m.c.publish(ctx, e); err != nil {
		return false, err
	}
	m.roster.frontier, m.target, m.first = frontier, target, false
	m.losses, m.owes = e.SinkLosses+m.c.losses, m.c.losses > 0
	m.lastTook = time.Since(m.lastStart)
	m.report(e.Number)
	if !ended {
		return false, nil
	}
	return true, m.close(ctx, e.Merger)
}

// due is one frozen slice of one partition.
type due struct {
	partition string
	Frozen
}

// merge folds every slice in (F, frontier], in order, and stages the rows of the windows that close.
// Rows that cannot be encoded come back as dead letters.
func (m *merger[E, R]) merge(ctx context.Context, e *Entry, frontier Instant) (dead []Row, err error) {
	if m.state == nil || frontier <= m.roster.frontier {
		return nil, nil
	}
	var work []due
	for i := range m.roster.rows {
		entry := m.newest[m.roster.rows[i].Name]
		if entry == nil {
			continue
		}
		for _, f := range entry.Frozen {
			if f.End > m.roster.frontier && f.End <= frontier {
				work = append(work, due{m.roster.rows[i].Name, f})
			}
		}
	}
	slices.SortFunc(work, func(a, b due) int {
		if a.End != b.End {
			if (a.End < b.End) != m.p.rules.unordered {
				return -1
			}
			return 1
		}
		return strings.Compare(a.partition, b.partition)
	})
	var rows []Row
	size := 0
	flush := func() error {
		err := m.c.stageRows(ctx, e, rows)
		rows, size = rows[:0], 0
		return err
	}
	emit := func(r *R) error {
		row, err := m.p.Encode(r)
		if err != nil {
			d := DeadLetter{Reason: ReasonEncode, Stage: "encode", Source: m.a.sourceName(), Partition: MergerPartition, Error: err.Error(), Raw: fmt.Appendf(nil, "%v", *r)}
			dead = append(dead, d.row())
			return nil
		}
		rows = append(rows, row)
		if size += len(row.Data); size >= partBytes {
			return flush()
		}
		return nil
	}
	for i, w := range work {
		if i > 0 && w.End != work[i-1].End {
			if err := m.state.Advance(work[i-1].End, emit); err != nil {
				return nil, err
			}
		}
		data, err := m.a.Log.ReadBlob(ctx, w.Data)
		if m.p.rules.missingIsEmpty && errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("slice of %s ending %s: %w", w.partition, w.End, err)
		}
		if err := m.state.Merge(w.Frozen, data); err != nil {
			return nil, fmt.Errorf("slice of %s ending %s: %w", w.partition, w.End, err)
		}
	}
	if err := m.state.Advance(frontier, emit); err != nil {
		return nil, err
	}
	return dead, flush()
}

// restore takes over from the entry that the claim names.
func (m *merger[E, R]) restore(ctx context.Context) error {
	if m.p.Operator != nil { // without one there is only the roster to keep
		if err := m.p.Validate(); err != nil {
			return err
		}
		m.width = m.p.Operator.Slice()
		m.state = m.p.Operator.Merger()
	}
	m.roster.frontier, m.restored, m.target, m.first = Beginning, Beginning, Beginning, true
	base := m.a.Base
	if base == nil || base.Kind == KindReset || base.Merger == nil {
		return nil
	}
	m.first = base.Kind == KindImport // saved once more at once, under this run's plan
	m.roster.rows, m.roster.imported = slices.Clone(base.Merger.Roster), base.Merger.Imported
	m.heldBy, m.heldSince, m.toldAt = base.Merger.HeldBy, base.Merger.HeldSince, time.Now()
	m.roster.frontier, m.target, m.tip, m.late = base.Merger.Frontier, base.Merger.Target, base.Merger.Tip, base.Merger.LatePartials
	m.ledger, m.losses = base.Ledger, base.SinkLosses
	if err := m.c.resume(ctx, base); err != nil {
		return err
	}
	m.restored = m.roster.frontier
	m.losses, m.owes = m.losses+m.c.losses, m.c.losses > 0
	for _, blob := range base.Snapshot {
		data, err := m.a.Log.ReadBlob(ctx, blob)
		if err != nil {
			return err
		}
		if err := m.state.Restore(data); err != nil {
			return fmt.Errorf("entry %d: %w", base.Number, err)
		}
	}
	return nil
}

// tell remembers who holds the frontier back, and says so once a minute.
func (m *merger[E, R]) tell(low Instant, who string) {
	now := time.Now()
	if who != m.heldBy {
		m.heldBy, m.heldSince, m.toldAt = who, now, now
		if s := m.a.Status(); s != nil {
			told := *s
			told.HeldBy, told.HeldSince = who, now
			m.a.Report(told)
		}
	}
	if m.width > 0 && who != "" && now.Sub(m.toldAt) >= time.Minute {
		m.toldAt = now
		m.c.logger.Info("windows wait for this partition's watermark", "partition", who, "watermark", low.String(),
			"since", m.heldSince.UTC().Format(time.RFC3339), "frontier", m.roster.frontier.String())
	}
}

func (m *merger[E, R]) report(newest uint64) {
	s := Status{Watermark: m.roster.frontier, Newest: newest, At: time.Now(), HeldBy: m.heldBy, HeldSince: m.heldSince}
	if m.state != nil {
		s.OpenWindows = m.state.Open()
	}
	m.a.Report(s)
}

func (m *merger[E, R]) stuck(err error) {
	s := Status{Watermark: m.roster.frontier, At: time.Now()}
	if err != nil {
		s.Error = err.Error()
	}
	m.a.Report(s)
}
