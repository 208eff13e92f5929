package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/query"
	"github.com/millstream/millstream/sinks/blob"
	"github.com/millstream/millstream/stream"
)

// drainDeadline is how long a shutdown may take: Fargate kills after 120 s at most.
const drainDeadline = 100 * time.Second

// Run runs a pipeline as the settings say, until ctx is done and everything has drained, or the
// pipeline has ended. Fields of p that the settings cover (Name, Sinks, DeadLetter, CheckpointEvery,
// OutOfOrder, IdleAfter, Late, From, Until, Logger) are set from them, sinks that p already has are
// kept. The last line that it logs is the pipeline's ledger. A *SettingError means that nothing was
// started.
func Run[E, R any](ctx context.Context, p *stream.Pipeline[E, R], s *Settings, stderr io.Writer) error {
	return run(ctx, p, s, stderr, hooks{})
}

// hooks are what a query adds to a run.
type hooks struct {
	opened func(context.Context, *wiring, *slog.Logger) error // store, source and sinks are open
	ended  func(*slog.Logger)                                 // a last word before the ledger
}

// run is Run with hooks, each of which may be nil.
func run[E, R any](ctx context.Context, p *stream.Pipeline[E, R], s *Settings, stderr io.Writer, h hooks) error {
	logger, err := newLogger(s, stderr)
	if err != nil {
		return err
	}
	boundMemory()
	w, err := open(ctx, s, p.Plan, logger)
	if err != nil {
		if ctx.Err() != nil {
			logger.Info("stopped before anything was read")
			return nil
		}
		return err
	}
	defer w.close()
	if err := apply(p, s, w); err != nil {
		return err
	}
	if h.opened != nil {
		if err := h.opened(ctx, w, logger); err != nil {
			return err
		}
	}
	if err := p.Validate(); err != nil {
		return settingf("pipeline", "%s", strings.TrimPrefix(err.Error(), "pipeline: "))
	}
	group := &watchedGroup{Group: w.store.Group(), caches: w.caches}
	if err := serveHTTP(ctx, s, group, logger); err != nil {
		return err
	}
	mirrored, err := w.mirrored(ctx, group, logger)
	if err != nil {
		return err
	}
	sub, err := consumers.New(consumers.Config{Source: w.source.Source, Group: mirrored, Logger: logger})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: drainDeadline}, quiet{})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { logger.Info("draining: a second signal exits at once", "within", drainDeadline.String()) })
	defer stop()
	router.AddConsumerHandler(s.Name, s.Name, sub.Batches(), p.Handle)
	runErr := drained(ctx, drainDeadline, func() error { return router.Run(ctx) })
	if errors.Is(runErr, errNotDrained) {
		return fmt.Errorf("%w%s", runErr, group.stuckOn(context.WithoutCancel(ctx)))
	}
	if err := sub.Err(); err != nil {
		runErr = err
	}
	if errors.Is(runErr, stream.ErrFinished) {
		if runErr = w.readAPipe(); runErr == nil {
			w.sayFinished(logger)
		}
	}
	w.letters.summary()
	if h.ended != nil {
		h.ended(logger)
	}
	return errors.Join(explain(runErr), w.ledger(logger))
}

// errNotDrained ends a process whose sinks or store do not answer while it shuts down. What was not
// saved is read again.
var errNotDrained = fmt.Errorf("not drained within %s: exiting all the same, what was not saved is read again", drainDeadline)

// drained runs f and returns its error, or errNotDrained when ctx has been done for longer than
// deadline: then f still runs, and the process must end.
func drained(ctx context.Context, deadline time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(deadline)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return errNotDrained
	}
}

// wiring is everything that a run holds open.
type wiring struct {
	settings *Settings
	bucket   bucket.Bucket
	store    *checkpoint.Store
	source   openedSource
	sinks    []stream.Sink
	letters  *letters
	caches   []namedCache // of enrichments
	closers  []func() error
}

func (w *wiring) close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		_ = w.closers[i]() // what matters was flushed and checked before
	}
}

func (w *wiring) closing(c func() error) {
	if c != nil {
		w.closers = append(w.closers, c)
	}
}

var validName = regexp.MustCompile(`^[a-z0-9._-]+$`)

// Resolve checks the settings against each other and fills in the defaults that depend on others.
func (s *Settings) Resolve() error {
	if s.Name == "" {
		if !isLocal(s.Checkpoint) && !strings.HasPrefix(s.Checkpoint, "mem:") {
			return settingf("--name", "is required with a bucket: instances with the same name share the work")
		}
		s.Name = "main"
	}
	if !validName.MatchString(s.Name) {
		return settingf("--name", "%q: use lower-case letters, digits, dots, dashes and underscores", s.Name)
	}
	for flag, d := range map[string]time.Duration{"--checkpoint-every": s.CheckpointEvery, "--lease": s.Lease, "--idle-after": s.IdleAfter} {
		if d <= 0 {
			return settingf(flag, "%s: must be more than nothing", d)
		}
	}
	if s.Lease < time.Second {
		return settingf("--lease", "%s: give it a second at least, or a slow disk loses it", s.Lease)
	}
	if s.OutOfOrder < 0 {
		return settingf("--out-of-order", "%s: must not be negative", s.OutOfOrder)
	}
	if s.Keep < 1 {
		return settingf("--keep", "%d: keep one checkpoint at least", s.Keep)
	}
	if s.Late != "dead-letter" && s.Late != "drop" {
		return settingf("--late", "%q: it is dead-letter or drop%s", s.Late, suggest(s.Late, []string{"dead-letter", "drop"}))
	}
	from, until := time.Time{}, time.Time{}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"--from", s.From, &from}, {"--until", s.Until, &until}} {
		if t.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, t.text)
		if err != nil {
			return settingf(t.flag, "%q: write a time as 2026-01-31T15:04:05Z", t.text)
		}
		*t.to = at
	}
	if !from.IsZero() && !until.IsZero() && !from.Before(until) {
		return settingf("--from", "%s is not before --until %s: nothing would be read", s.From, s.Until)
	}
	return nil
}

// open opens store, source and sinks, in the order in which their failures are easiest to mend.
func open(ctx context.Context, s *Settings, plan func() stream.Plan, logger *slog.Logger) (_ *wiring, err error) {
	if err := s.Resolve(); err != nil {
		return nil, err
	}
	w := &wiring{settings: s}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.source, err = openSource(ctx, s, logger); err != nil {
		return nil, err
	}
	w.closing(w.source.Close)
	if w.source.network && !s.set("checkpoint") && inContainer() {
		return nil, settingf("--checkpoint", "the default is a folder of this container, which is lost with it: name a bucket (s3://, gs://, azblob://) or a mounted volume")
	}
	if err := w.openStore(ctx, plan, logger); err != nil {
		return nil, err
	}
	if err := s.refuseLoop(); err != nil {
		return nil, err
	}
	for _, raw := range s.Sinks {
		sink, err := openSink(ctx, "--sink", raw, logger)
		if err != nil {
			return nil, err
		}
		w.sinks = append(w.sinks, sink.Sink)
		w.closing(sink.close)
		if err := s.fits(raw, sink.Sink); err != nil {
			return nil, err
		}
	}
	return w, w.openDeadLetter(ctx, logger)
}

func (w *wiring) openStore(ctx context.Context, plan func() stream.Plan, logger *slog.Logger) (err error) {
	s := w.settings
	if w.bucket, err = openBucket(ctx, "--checkpoint", s.Checkpoint); err != nil {
		return err
	}
	w.closing(w.bucket.Close)
	if err := writable(ctx, w.bucket); err != nil { // fails sooner than a race of eight
		return unusable("--checkpoint", err, "%s: cannot be written: %v", w.bucket.URL())
	}
	if err := bucket.Check(ctx, w.bucket); err != nil {
		return unusable("--checkpoint", err, "%v")
	}
	full := append(stream.Plan{{Name: "--source", Value: w.source.Identity()}}, plan()...)
	w.store, err = checkpoint.Open(ctx, checkpoint.Config{Bucket: w.bucket, Name: s.Name, Plan: full, Lease: s.Lease,
		Keep: s.Keep, DedupeFor: s.DedupeFor, Bounded: s.UntilEnd || s.Until != "", Checked: true, Logger: logger})
	return explain(err)
}

// deadLetter is where dead letters go that do not go beside the log.
func (s *Settings) deadLetter() string {
	if s.DeadLetter == "" && strings.HasPrefix(s.Checkpoint, "mem:") {
		return memoryLetters
	}
	return s.DeadLetter
}

// memoryLetters is where dead letters go when the log is in memory, which is gone with the program.
const memoryLetters = "./dead-letter"

// besideLog is where in the checkpoint's bucket a pipeline's dead letters go.
func besideLog(pipeline string) string { return pipeline + "/dead-letter/" }

// openDeadLetter opens --dead-letter, or the folder beside the log.
func (w *wiring) openDeadLetter(ctx context.Context, logger *slog.Logger) error {
	beside := besideLog(w.settings.Name)
	if raw := w.settings.deadLetter(); raw != "" {
		sink, err := openSink(ctx, "--dead-letter", raw, logger)
		w.closing(sink.close)
		w.letters = &letters{Sink: sink.Sink, where: raw, logger: logger}
		return err
	}
	sink, err := blob.New(w.bucket, beside)
	w.letters = &letters{Sink: sink, where: strings.TrimSuffix(w.bucket.URL(), "/") + "/" + beside, logger: logger}
	return err
}

// apply sets the fields of p that the settings cover.
func apply[E, R any](p *stream.Pipeline[E, R], s *Settings, w *wiring) error {
	p.Name, p.Logger = s.Name, slog.Default()
	p.Sinks = append(p.Sinks, w.sinks...)
	if len(p.Sinks) == 0 {
		return settingf("--sink", "is missing: results would go nowhere. Try --sink stdout: or --sink ./out")
	}
	if p.DeadLetter == nil || s.DeadLetter != "" {
		p.DeadLetter = w.letters
	}
	p.CheckpointEvery, p.IdleAfter = s.CheckpointEvery, s.IdleAfter
	if s.Late == "drop" {
		p.Late = stream.LateDrop
	}
	switch {
	case s.set("out-of-order"):
		p.OutOfOrder = s.OutOfOrder
	case p.OutOfOrder != 0:
	case s.UntilEnd:
		p.OutOfOrder = stream.Unbounded
	default:
		p.OutOfOrder = w.source.outOfOrder
	}
	for text, to := range map[string]*time.Time{s.From: &p.From, s.Until: &p.Until} {
		if text != "" {
			*to, _ = time.Parse(time.RFC3339Nano, text) // Resolve has parsed it already
		}
	}
	return nil
}

// readAPipe refuses to take a pipe for one that an earlier run has read to its end: what is in it now
// is new, and would be thrown away.
func (w *wiring) readAPipe() error {
	if w.settings.Driver != nil {
		return nil
	}
	if l, err := parseLocation("--source", w.settings.Source); err != nil || l.scheme != "stdin" {
		return err
	}
	return settingf("--source", "stdin: a pipe was read to its end under --name %s, and this one was not read: use --checkpoint mem:, a new --name, or `millstream checkpoints reset`", w.settings.Name)
}

// sayFinished explains why there was nothing to do.
func (w *wiring) sayFinished(logger *slog.Logger) {
	hint := fmt.Sprintf("use a new --name to start again (this one is %q), or `millstream checkpoints reset`", w.settings.Name)
	ctx := context.Background()
	if src, ok := w.source.Source.(interface {
		Additions(context.Context, map[string]stream.Position) ([]string, error)
	}); ok {
		ends, err := w.store.Ends(ctx)
		if err == nil {
			if added, err := src.Additions(ctx, ends); err == nil && len(added) > 0 {
				logger.Warn("this pipeline has ended; what was added since is not read", "added", added, "hint", hint)
				return
			}
		}
	}
	logger.Info("this pipeline has ended: nothing is new", "hint", hint)
}

// ledger logs the last line: what became of every record, summed from the saved logs.
func (w *wiring) ledger(logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
	defer cancel()
	l, err := w.store.Ledger(ctx)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	logger.Info("ledger", "records_in", l.RecordsIn, "contributed", l.Contributed, "filtered", l.Filtered,
		"late", l.Late, "dead_lettered", l.DeadLettered, "rows_out", l.RowsOut)
	return nil
}

// explain turns errors of the layers below into ones that name the setting.
func explain(err error) error {
	var changed *checkpoint.PlanChanged
	if errors.As(err, &changed) {
		setting, problem, _ := strings.Cut(changed.Error(), " ")
		return &planError{setting, problem}
	}
	return err
}

// planError is a changed plan: worded as the log words it, and a wrong setting all the same.
type planError struct{ setting, problem string }

func (e *planError) Error() string { return e.setting + " " + e.problem }

// ExitCode is what a program exits with after err: 0, 2 for a wrong setting, 1 for a failure.
func ExitCode(err error) int {
	var setting *SettingError
	var inQuery *query.SettingError
	var plan *planError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &setting) && setting.Passing:
		return 1
	case setting != nil, errors.As(err, &inQuery), errors.As(err, &plan):
		return 2
	}
	return 1
}

// quiet drops the router's own log: the engine says what matters, once.
type quiet struct{ watermill.NopLogger }
