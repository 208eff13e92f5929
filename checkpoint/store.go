package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Config says where a pipeline's state lives and how it is kept. Bucket and Name are needed.
type Config struct {
	Bucket bucket.Bucket // closed by whoever opened it
	Name   string        // of the pipeline, [a-z0-9._-]+: its folder in the bucket

	// Plan is what must not change while there is state (A8). Without one nothing can be claimed: the
	// store is for looking only.
	Plan stream.Plan
	// Lease is how long the heartbeat of an owner must stand still before others take its partitions.
	// The owner itself stops after half of it. Default 15 s.
	Lease time.Duration
	// Keep is how many checkpoints are kept behind the newest one. Default 10.
	Keep int
	// DedupeFor keeps checkpoints for at least so long, whatever Keep says, for sources whose recent
	// ids are part of the log. Default 0.
	DedupeFor time.Duration
	// Bounded says that the pipeline has an end: a group gives up when damage keeps it from there and
	// nothing else is under way. Without it what is damaged is tried again for ever, loudly.
	Bounded bool
	// Checked says that bucket.Check has passed for the bucket; otherwise a group runs it first (A10).
	Checked bool
	// Member begins the member ids of this process. Default: the host's name.
	Member string
	Logger *slog.Logger // default slog.Default()

	// BootTime is a clock that also runs while the machine is suspended (A4). Default
	// CLOCK_BOOTTIME where there is one. A simulation in virtual time sets its own.
	BootTime func() time.Duration
	// WallClock is what this process takes for the time of day (M5). Default time.Now. A simulation of
	// machines that disagree sets its own.
	WallClock func() time.Time

	rules rules
}

// Store is one pipeline's state in a bucket. Safe for concurrent use. It holds no goroutines and
// nothing to close.
type Store struct {
	bucket bucket.Bucket
	name   string
	cfg    Config
	plan   stream.Plan
	lease  time.Duration
	logger *slog.Logger
	boot   func() time.Duration
	rules  rules
	pack   packer
	recent recent
	news   news

	mu        sync.Mutex
	followers map[string]*follower
}

var validName = regexp.MustCompile(`^[a-z0-9._-]+$`)

// Open opens a pipeline's state. It writes nothing. When there is state already and cfg has a plan,
// the two are compared: a *PlanChanged says what differs.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if !validName.MatchString(cfg.Name) || strings.Trim(cfg.Name, ".") == "" {
		return nil, fmt.Errorf("pipeline name %q: use lower-case letters, digits, dots, dashes and underscores", cfg.Name)
	}
	if cfg.Bucket == nil {
		return nil, errors.New("checkpoint: Config.Bucket is missing")
	}
	if cfg.Lease <= 0 {
		cfg.Lease = 15 * time.Second
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 10
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.WallClock == nil {
		cfg.WallClock = time.Now
	}
	if cfg.BootTime == nil {
		cfg.BootTime = bootTime
	}
	s := &Store{bucket: cfg.Bucket, name: cfg.Name, cfg: cfg, plan: cfg.Plan, lease: cfg.Lease, logger: cfg.Logger,
		boot: cfg.BootTime, rules: cfg.rules, followers: make(map[string]*follower)}
	if cfg.Plan == nil {
		return s, nil
	}
	merger := s.follow(stream.MergerPartition)
	if err := merger.sync(ctx, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", s.bucket.URL(), err)
	}
	if err := s.checkPlan(merger.state().base); err != nil {
		return nil, err
	}
	return s, nil
}

// PlanChanged says that the saved state belongs to another plan (A8).
type PlanChanged struct {
	Change string // "--window changed (1m → 5m)"
	Entry  uint64 // the newest checkpoint, which has the old one
}

func (p *PlanChanged) Error() string {
	return fmt.Sprintf("%s since entry %d: use a new --name, set it back, or checkpoints reset", p.Change, p.Entry)
}

// checkPlan compares the plan of a saved entry with the store's.
func (s *Store) checkPlan(e *stream.Entry) error {
	if e == nil || e.Kind == stream.KindReset || e.Kind == stream.KindImport || s.plan == nil || s.rules.noPlan {
		return nil
	}
	if change := e.Plan.Changed(s.plan); change != "" {
		return &PlanChanged{change, e.Number}
	}
	return nil
}

// path is the full name of an object of the pipeline.
func (s *Store) path(name string) string { return s.name + "/" + name }

// escape makes a partition's name a segment of an object's name.
func escape(partition string) string {
	e := url.PathEscape(partition)
	if strings.HasPrefix(e, ".") { // names that some stores take for themselves
		e = "%2E" + e[1:]
	}
	return e
}

func logDir(partition string) string      { return "log/" + escape(partition) + "/" }
func objectDir(partition string) string   { return "objects/" + escape(partition) + "/" }
func memberName(id string) string         { return "members/" + id }
func entryName(p string, n uint64) string { return fmt.Sprintf("%s%020d", logDir(p), n) }

func objectName(partition string, claim, seq uint64, kind string) string {
	return fmt.Sprintf("%s%020d-%06d-%s", objectDir(partition), claim, seq, kind)
}

// number reads the number of an entry from its name's last segment; other names are not entries.
func number(segment string) (uint64, bool) {
	if len(segment) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(segment, 10, 64)
	return n, err == nil
}

// list returns the numbers of a partition's log, ascending.
func (s *Store) list(ctx context.Context, partition string) ([]uint64, error) {
	dir := s.path(logDir(partition))
	names, err := s.bucket.List(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	numbers := make([]uint64, 0, len(names))
	for _, name := range names {
		if n, ok := number(strings.TrimPrefix(name, dir)); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// logs lists every log of the pipeline.
func (s *Store) logs(ctx context.Context) (map[string][]uint64, error) {
	dir := s.path("log/")
	names, err := s.bucket.List(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	all := make(map[string][]uint64)
	for _, name := range names {
		segment, last, ok := strings.Cut(strings.TrimPrefix(name, dir), "/")
		n, isEntry := number(last)
		partition, err := url.PathUnescape(segment)
		if ok && isEntry && err == nil {
			all[partition] = append(all[partition], n)
		}
	}
	for _, numbers := range all {
		slices.Sort(numbers)
	}
	return all, nil
}

// read gets one entry, bucket.ErrNotFound when there is none, *Damaged when it cannot be read (A9).
func (s *Store) read(ctx context.Context, partition string, n uint64) (*stream.Entry, error) {
	name := s.path(entryName(partition, n))
	data, err := s.bucket.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", name, err)
	}
	e, err := decodeEntry(data)
	if err != nil {
		if s.rules.skipDamaged {
			return nil, fmt.Errorf("entry %s: %w", name, bucket.ErrNotFound)
		}
		return nil, &Damaged{name, err.Error()}
	}
	e.Number = n
	return e, nil
}

// offer is A1: it creates the entry's object, and knows afterwards whether it is in the log. The
// bytes never change. After any error the number is read back: our nonce, it is written; another
// one, we are fenced; nothing there, the same bytes are offered again. It returns nil, ErrFenced, an
// error that says that the number is taken by damaged bytes, or ctx's, after which the outcome is
// unknown.
func (s *Store) offer(ctx context.Context, partition string, e *stream.Entry) error {
	data, err := encodeEntry(e)
	if err != nil {
		return err
	}
	name := s.path(entryName(partition, e.Number))
	for wait := s.backOff(); ; {
		if err = s.bucket.Create(ctx, name, data); err == nil {
			return nil
		}
		if s.rules.noReadBack {
			if errors.Is(err, bucket.ErrExists) {
				return stream.ErrFenced
			}
			return err
		}
		there, readErr := s.read(ctx, partition, e.Number)
		var damaged *Damaged
		switch {
		case readErr == nil && there.Nonce == e.Nonce:
			return nil
		case readErr == nil:
			return fmt.Errorf("%w: entry %d is a %s of %s", stream.ErrFenced, e.Number, there.Kind, there.Owner)
		case errors.As(readErr, &damaged):
			return readErr
		case !errors.Is(readErr, bucket.ErrNotFound):
			err = errors.Join(err, readErr)
		}
		s.logger.Warn("an entry cannot be saved: trying again", "entry", name, "error", err)
		if sleepErr := wait.sleep(ctx); sleepErr != nil {
			return fmt.Errorf("entry %s may or may not be saved: %w (last: %w)", name, sleepErr, err)
		}
		if s.rules.freshBytes {
			e.Nonce = nonce()
			if data, err = encodeEntry(e); err != nil {
				return err
			}
		}
	}
}

// backOff spaces the attempts at one request.
type backOff struct{ wait, max time.Duration }

func (s *Store) backOff() *backOff {
	return &backOff{min(100*time.Millisecond, s.lease/20), s.lease / 3}
}

// sleep waits before the next attempt; the error is why ctx is done.
func (b *backOff) sleep(ctx context.Context) error {
	t := time.NewTimer(b.wait/2 + rand.N(b.wait/2+1))
	defer t.Stop()
	b.wait = min(b.wait*2, b.max)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// news wakes everybody who waits for something new.
type news struct {
	mu sync.Mutex
	c  chan struct{}
}

// next returns a channel that the next tell closes.
func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c == nil {
		n.c = make(chan struct{})
	}
	return n.c
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c != nil {
		close(n.c)
		n.c = nil
	}
}
