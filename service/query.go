package service

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/query"
)

// QuerySettings are the settings of the ready-made service: what every program can be told, and a
// query in place of a pipeline written in Go.
type QuerySettings struct {
	Settings
	Query  query.Config
	Enrich []string // NAME=URL?…&on=FIELD

	enrichments []enrichment
}

// Register adds the flags of s to a flag set, with their defaults.
func (s *QuerySettings) Register(f *pflag.FlagSet) {
	f.SortFlags = false
	s.Settings.Register(f)
	q := &s.Query
	f.StringVar(&q.Where, "where", "", "expression; records for which it is false are filtered")
	f.StringArrayVar(&q.Require, "require", nil, "expression (repeatable); records for which it is false are dead-lettered")
	f.StringVar(&q.Select, "select", "", "'expr as name, field, *': the event that keys and aggregates see, and that is written without --window")
	f.StringArrayVar(&s.Enrich, "enrich", nil, "'NAME=URL?key=&on=FIELD&select=&ttl=5m&absent-ttl=30s&max=100000&missing=null|drop|dead-letter&on-error=wait|stale|missing|dead-letter&default.FIELD=' (repeatable): the row found appears as field NAME. Tables are files (PATH, s3://, gs://, azblob://), dynamodb://, firestore://, datastore://, azuretables://, redis://, postgres://, mysql://, https://")
	f.StringSliceVar(&q.Key, "key", nil, "FIELD[,FIELD]: group by these")
	f.StringVar(&q.Time, "time", "", "field that holds the event time")
	f.StringVar(&q.TimeLayout, "time-layout", "", "how it is written (default: RFC 3339, or unix s, ms, µs told apart by size)")
	f.StringVar(&q.Window, "window", "", "tumbling:1m, hopping:1m/10s or session:30s")
	f.StringVar(&q.Aggregate, "aggregate", "", "'count() as n, sum(EXPR) as total, min(x), max(x), avg(x), stddev(x), first(x), last(x), count_distinct(x), quantile(x, 0.99), top(x, 10)'")
}

// Compile completes the settings from the environment and compiles the query.
func (s *QuerySettings) Compile() (*query.Query, error) {
	if err := LoadEnv(s.flags, os.Environ()); err != nil {
		return nil, err
	}
	s.Query.Arrivals = s.stampsArrivals()
	if (s.From != "" || s.Until != "") && s.Query.Time == "" && !s.Query.Arrivals {
		return nil, settingf("--time", "is missing: --from and --until look at the event time")
	}
	var err error
	if s.enrichments, err = s.parseEnrichments(); err != nil {
		return nil, err
	}
	s.Query.Enrich = nil
	for i := range s.enrichments {
		s.Query.Enrich = append(s.Query.Enrich, s.enrichments[i].query)
	}
	q, err := query.Compile(s.Query)
	if err == nil && q.Windowed() {
		s.columns = q.Columns()
	}
	return q, err
}

// stampsArrivals reports whether the source says when it received a record.
func (s *Settings) stampsArrivals() bool {
	return strings.HasPrefix(s.Source, "kinesis:") || strings.HasPrefix(s.Source, "eventhubs:")
}

// RunQuery compiles the query and runs it; see Run.
func RunQuery(ctx context.Context, s *QuerySettings, stderr io.Writer) error {
	if err := LoadEnv(s.flags, os.Environ()); err != nil {
		return err
	}
	logger, err := newLogger(&s.Settings, stderr)
	if err != nil {
		return err
	}
	s.Query.Logger = logger
	q, err := s.Compile()
	if err != nil {
		return err
	}
	p := q.Pipeline()
	joiner := &joiner{q, s.enrichments}
	return run(ctx, p, &s.Settings, stderr, hooks{
		opened: func(ctx context.Context, w *wiring, logger *slog.Logger) (err error) {
			p.Enrich, err = joiner.open(ctx, w, logger)
			return err
		},
		ended: func(logger *slog.Logger) {
			for _, a := range q.Absent() {
				if a.Records < query.Watched { // after more the query has said so itself
					logger.Warn(a.String(), "flag", a.Flag, "field", a.Field)
				}
			}
		},
	})
}

// CheckQuery is Check for a query, whose tables it tries too.
func CheckQuery(ctx context.Context, s *QuerySettings, out io.Writer) error {
	q, err := s.Compile()
	if err != nil {
		return err
	}
	return check(ctx, &s.Settings, q.Pipeline().Plan(), q.Columns(), s.enrichments, q.Joins(), out)
}
