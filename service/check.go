package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/query"
	"github.com/millstream/millstream/stream"
)

// Check tries everything that a run with these settings needs, and says which guarantee they mean
// and which access they take. It reads and writes no record. columns are those of a result row.
func Check(ctx context.Context, s *Settings, plan stream.Plan, columns []string, out io.Writer) error {
	return check(ctx, s, plan, columns, nil, nil, out)
}

// check is Check, with the tables of enrichments.
func check(ctx context.Context, s *Settings, plan stream.Plan, columns []string, enrichments []enrichment, joins []*query.Join, out io.Writer) error {
	logger := slog.New(slog.DiscardHandler)
	if len(s.Sinks) == 0 {
		return settingf("--sink", "is missing: results would go nowhere. Try --sink stdout: or --sink ./out")
	}
	w, err := open(ctx, s, func() stream.Plan { return plan }, logger)
	if err != nil {
		return err
	}
	defer w.close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }

	partitions, err := w.source.Partitions(ctx)
	if err != nil {
		return unusable("--source", err, "%v")
	}
	line("source", "%s: readable, %s", strings.TrimSuffix(w.source.Identity(), ":"), count(len(partitions), "partition"))
	line("checkpoint", "%s: lists, reads back what it writes, and creates only if absent (8 writers raced for 16 names)", strings.TrimSuffix(w.bucket.URL(), ":"))
	entries, err := w.store.List(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(entries) == 0:
		line("", "pipeline %q has no state yet: it starts at the source's start", s.Name)
	case entries[0].Partition == stream.MergerPartition && entries[0].Kind == stream.KindEnd:
		line("", "pipeline %q has ended: it would read nothing. Use a new --name to start again, or `millstream checkpoints reset`", s.Name)
	default:
		line("", "pipeline %q has state: it goes on where it was (millstream checkpoints list)", s.Name)
	}
	for i := range enrichments {
		e := enrichments[i] // a copy: opening it takes its parameters
		if len(e.query.Select) == 0 {
			e.query.Select = joins[i].Fields()
		}
		table, err := openTable(ctx, &e, logger)
		if err != nil {
			return err
		}
		w.closing(table.Close)
		line("enrich", "%s = %s: %s", joins[i], strings.TrimSuffix(shown(e.raw), ":"), e.describe())
	}
	for i, raw := range s.Sinks {
		if err := checkSink(ctx, "--sink", raw); err != nil {
			return err
		}
		if err := tableWritable(ctx, w.sinks[i]); err != nil {
			return unusable("--sink", err, "%v")
		}
		line("sink", "%s: %s", strings.TrimSuffix(raw, ":"), s.guarantee(raw, w.sinks[i]))
	}
	if dead := s.deadLetter(); dead != "" {
		if err := checkSink(ctx, "--dead-letter", dead); err != nil {
			return err
		}
		if err := tableWritable(ctx, w.letters.Sink); err != nil {
			return unusable("--dead-letter", err, "%v")
		}
	}
	line("dead letter", "%s", w.letters.where)
	line("rows", "%s", strings.Join(columns, ", "))
	for i, a := range slices.Concat(s.access(), tableAccess(enrichments)) {
		label := ""
		if i == 0 {
			label = "access"
		}
		line(label, "%s", a)
	}
	return t.Flush()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checkSink makes sure that a bucket sink keeps its promise: a name is written once.
func checkSink(ctx context.Context, setting, raw string) error {
	l, err := parseLocation(setting, raw)
	if err != nil {
		return err
	}
	switch l.scheme {
	case "file", "s3", "gs", "azblob":
		b, err := openBucket(ctx, setting, bucketURL(raw))
		if err != nil {
			return err
		}
		defer b.Close()
		if err := bucket.Check(ctx, b); err != nil {
			return unusable(setting, err, "%v")
		}
	}
	return nil
}

// guarantee words what a sink can honestly promise behind this source and this checkpoint store.
func (s *Settings) guarantee(sink string, opened stream.Sink) string {
	l, err := parseLocation("--sink", sink)
	if err != nil {
		return err.Error()
	}
	source, err := parseLocation("--source", s.Source)
	var within string
	if err == nil && source.scheme == "pubsub" {
		var all string
		if all, within = s.pubsubGuarantee(source); all != "" {
			return all
		}
	}
	switch {
	case err == nil && source.scheme == "stdin":
		return "at most once after a crash: what was read from a pipe and not yet saved cannot be read again. Use a file to be able to resume"
	case strings.HasPrefix(s.Checkpoint, "mem:"):
		return "exactly once while the process lives; after a restart everything is read and delivered again, because --checkpoint mem: forgets. Name a folder or a bucket to resume"
	}
	switch l.scheme {
	case "file", "s3", "gs", "azblob":
		return "exactly once" + within + ": a file is named after its checkpoint and created only if absent, so a repeated delivery finds its name taken, whatever the settings are by then. Readers ignore names starting with _ or ."
	case "bigquery":
		return tableGuarantee(opened, within)
	case "firehose":
		return "at least once: a crash between sending and the next checkpoint sends rows again, and so does Firehose after a lost answer. Every row carries _id, the same each time: deduplicate by it where the rows arrive (a query, in package sinks/firehose)"
	case "kinesis", "pubsub", "eventhubs":
		return "at least once: a crash between sending and the next checkpoint sends rows again. Every row carries _id, the same each time: deduplicate by it"
	case "stdout":
		return "at least once: a crash between printing and the next checkpoint prints rows again"
	}
	return "unknown"
}

// access lists the permissions that these settings need, least privilege.
func (s *Settings) access() []string {
	var lines []string
	add := func(setting, raw string, read bool) {
		l, err := parseLocation(setting, raw)
		if err != nil {
			return
		}
		name, _, _ := strings.Cut(l.rest, "/")
		switch l.scheme {
		case "kinesis":
			if read {
				lines = append(lines, kinesisAccess(l)...)
			} else {
				needs := "kinesis:PutRecords, kinesis:DescribeStreamSummary"
				if l.params.Get("aggregate") != "false" {
					needs += ", kinesis:ListShards"
				}
				lines = append(lines, needs+" on stream "+l.rest)
			}
		case "bigquery":
			lines = append(lines, "bigquery.tables.get, bigquery.tables.updateData on table "+strings.ReplaceAll(l.rest, "/", ".")+" (role BigQuery Data Editor)")
		case "firehose":
			lines = append(lines, "firehose:PutRecordBatch, firehose:DescribeDeliveryStream on delivery stream "+l.rest)
		case "eventhubs":
			if read {
				lines = append(lines, "Azure Event Hubs Data Receiver on event hub "+l.rest)
			} else {
				lines = append(lines, "Azure Event Hubs Data Sender on event hub "+l.rest)
			}
		case "pubsub":
			if read {
				lines = append(lines, pubsubAccess(l)...)
			} else {
				lines = append(lines, "pubsub.topics.publish on topic "+l.rest+" (role Pub/Sub Publisher)")
			}
		case "s3":
			if read {
				lines = append(lines, "s3:GetObject on "+l.rest+"/*, s3:ListBucket on "+name)
				break
			}
			lines = append(lines, "s3:PutObject, s3:GetObject, s3:DeleteObject on "+l.rest+"/*, s3:ListBucket on "+name)
		case "gs":
			if read {
				lines = append(lines, "storage.objects.get, list on "+l.rest)
				break
			}
			lines = append(lines, "storage.objects.create, get, list, delete on "+l.rest)
		case "azblob":
			if read {
				lines = append(lines, "Storage Blob Data Reader on container "+name)
				break
			}
			lines = append(lines, "Storage Blob Data Contributor on container "+name)
		case "file":
			if read {
				lines = append(lines, "read "+absolute(strings.TrimPrefix(l.rest, "//")))
			} else {
				lines = append(lines, "read and write "+absolute(strings.TrimPrefix(l.rest, "//")))
			}
		}
	}
	add("--source", s.Source, true)
	add("--checkpoint", s.Checkpoint, false)
	for _, sink := range s.Sinks {
		add("--sink", sink, false)
	}
	if dead := s.deadLetter(); dead != "" {
		add("--dead-letter", dead, false)
	}
	return lines
}
