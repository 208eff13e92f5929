package service

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	bigquerysink "github.com/millstream/millstream/sinks/bigquery"
	"github.com/millstream/millstream/stream"
)

// letterColumns are the fields of a dead letter.
var letterColumns = []string{"reason", "stage", "source", "partition", "position", "event_time", "error", "attempts", "length", "raw"}

// openBigQuerySink opens bigquery://PROJECT/DATASET/TABLE?write=append|upsert&unknown=dead-letter|ignore|fail
// &endpoint= as a sink or a dead letter.
func openBigQuerySink(ctx context.Context, l location, logger *slog.Logger) (openedSink, error) {
	if err := l.only("write", "unknown", "endpoint"); err != nil {
		return openedSink{}, err
	}
	if _, err := l.tableName(); err != nil {
		return openedSink{}, err
	}
	parts := strings.Split(l.rest, "/")
	o := bigquerysink.Options{Project: parts[0], Dataset: parts[1], Table: parts[2], Endpoint: l.params.Get("endpoint"), Logger: logger}
	o.Write, o.Unknown = bigquerysink.Mode(l.params.Get("write")), bigquerysink.Unknown(l.params.Get("unknown"))
	letters := l.setting == "--dead-letter"
	if letters {
		if o.Write == bigquerysink.Upsert {
			return openedSink{}, settingf(l.setting, "%s: write=upsert would keep one dead letter for each key: leave it out", l.raw)
		}
		o.Write = bigquerysink.Append
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	sink, err := bigquerysink.New(starting, o)
	if err != nil {
		return openedSink{}, unusable(l.setting, err, "%v")
	}
	if letters {
		if err := sink.Fits(letterColumns); err != nil {
			_ = sink.Close() // the error that matters is err
			return openedSink{}, unusable(l.setting, err, "%v")
		}
	}
	return openedSink{sink, sink.Close}, nil
}

// tableName is the name that SQL has for the table.
func (l location) tableName() (string, error) {
	parts := strings.Split(l.rest, "/")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return "", settingf(l.setting, "%s: names no table: want bigquery://PROJECT/DATASET/TABLE", l.raw)
	}
	return strings.Join(parts, "."), nil
}

// fits compares the columns of rows, where they are known, with those of a sink that has columns.
func (s *Settings) fits(raw string, sink stream.Sink) error {
	if table, ok := sink.(bigquerysink.Sink); ok && s.columns != nil {
		if err := table.Fits(s.columns); err != nil {
			return settingf("--sink", "%s: %v", raw, err)
		}
	}
	return nil
}

// tableWritable asks whether rows may be written into a sink that is a table.
func tableWritable(ctx context.Context, sink stream.Sink) error {
	if table, ok := sink.(bigquerysink.Sink); ok {
		return table.Writable(ctx)
	}
	return nil
}

// tableGuarantee words what a table of BigQuery shows.
func tableGuarantee(sink stream.Sink, within string) string {
	if table, ok := sink.(bigquerysink.Sink); ok && table.Mode() == bigquerysink.Upsert {
		return "one row for each primary key, the newest" + within + ": changes carry the number of their checkpoint, so a repeated or late delivery changes nothing"
	}
	return "exactly once" + within + ": rows wait in buffered streams that queries do not see, and a saved checkpoint names the offsets up to which they are shown; showing them again changes nothing"
}
