// Command stream-enrichment is a chain of functions as one pipeline: events from Kinesis, a lookup of their
// user, a format, Firehose. Kinesis and Firehose are embedded here, so that it runs without an account:
//
//	go run ./examples/stream-enrichment
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/file"
	"github.com/millstream/millstream/fakes/firehose"
	"github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// Event is what the stream holds, and what is known of its user.
type Event struct {
	ID        string `json:"id"`
	UserID    string `json:"user_id"`
	Type      string `json:"type"`
	Timestamp string `json:"timestamp"`
	User      *User  `json:"-"` // nil: nobody knows the user
}

// User is a row of the reference data.
type User struct {
	Tier    string `json:"tier"`
	Country string `json:"country"`
}

// Row is what is delivered.
type Row struct {
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id"`
	EventType string `json:"event_type"`
	Timestamp string `json:"timestamp"`
	UserTier  string `json:"user_tier"`
	Country   string `json:"country"`
}

// known looks the users of a whole batch up at once.
func known(users enrich.Lookup[string, User]) stream.Enricher[Event] {
	key := func(e *stream.Event[Event]) (string, bool) { return e.Value.UserID, true }
	return enrich.With(users, key, func(e *stream.Event[Event], user User, found bool) error {
		if found {
			e.Value.User = &user
		}
		return nil
	})
}

func pipeline(users enrich.Lookup[string, User]) *stream.Pipeline[Event, Row] {
	return &stream.Pipeline[Event, Row]{
		Name: "stream-enrichment",
		Decode: func(r *stream.Record) (e stream.Event[Event], err error) {
			if err := json.Unmarshal(r.Data, &e.Value); err != nil {
				return e, err
			}
			if e.Value.ID == "" || e.Value.UserID == "" {
				return e, errors.New("no id or no user_id")
			}
			e.Key = e.Value.UserID
			return e, nil
		},
		Enrich:   []stream.Enricher[Event]{known(users)},
		Operator: &stream.Map[Event, Row]{Func: format},
		Encode: func(r *Row) (stream.Row, error) {
			data, err := json.Marshal(r)
			return stream.Row{Key: r.UserID, Data: data}, err
		},
	}
}

// format is the second function of the chain.
func format(e *stream.Event[Event]) (Row, error) {
	v := &e.Value
	row := Row{EventID: v.ID, UserID: v.UserID, EventType: v.Type, Timestamp: v.Timestamp, UserTier: "unknown", Country: "unknown"}
	if v.User != nil {
		row.UserTier, row.Country = cmp.Or(v.User.Tier, "free"), cmp.Or(v.User.Country, "unknown")
	}
	return row, nil
}

func main() {
	ctx, stop := service.Signals(context.Background())
	defer stop()
	service.Exit(run(ctx, "examples/stream-enrichment", os.Stdout, os.Stderr))
}

// run does it all once, in a folder of its own, and shows what was delivered.
func run(ctx context.Context, here string, out, log io.Writer) error {
	table, err := file.New(ctx, file.Options{Path: filepath.Join(here, "users.csv"), Key: "user_id"})
	if err != nil {
		return err
	}
	defer table.Close()
	users, err := enrich.NewCache(enrich.JSON[User](table), enrich.Config[string, User]{Name: "user"})
	if err != nil {
		return err
	}
	defer users.Close()
	dir, err := os.MkdirTemp("", "stream-enrichment-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in := kinesis.New(kinesis.Options{})
	defer in.Close()
	inAt, err := in.Start()
	if err != nil {
		return err
	}
	if err := load(in, filepath.Join(here, "events.ndjson")); err != nil {
		return err
	}
	to := firehose.New(firehose.Options{Folder: filepath.Join(dir, "delivered")})
	defer to.Close()
	toAt, err := to.Start()
	if err != nil {
		return err
	}
	if err := to.CreateDeliveryStream("enriched"); err != nil {
		return err
	}

	// The embedded services take any credentials, but take some.
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if err := os.Setenv(name, "embedded"); err != nil {
			return err
		}
	}
	s := &service.Settings{}
	flags := pflag.NewFlagSet("stream-enrichment", pflag.ContinueOnError)
	s.Register(flags)
	err = flags.Parse([]string{
		"--source", "kinesis://events?region=us-east-1&endpoint=" + inAt, "--until-end",
		"--sink", "firehose://enriched?region=us-east-1&endpoint=" + toAt,
		"--checkpoint", filepath.Join(dir, "state"), "--http", "",
	})
	if err != nil {
		return err
	}
	if err := service.Run(ctx, pipeline(users), s, log); err != nil {
		return err
	}
	if err := to.Flush(); err != nil {
		return err
	}
	stats := to.Stats("enriched")
	fmt.Fprintf(out, "%d bytes in %d Firehose records, billed as %d:\n", stats.Bytes, stats.Records, stats.BilledBytes)
	files, err := filepath.Glob(filepath.Join(dir, "delivered", "enriched", "*", "*", "*", "*", "*"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return err
}

// load puts each line under its user.
func load(server *kinesis.Server, path string) error {
	if err := server.CreateStream("events", 2); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var e Event
		_ = json.Unmarshal(lines.Bytes(), &e) // a line that is no event has a key too
		if _, _, err := server.Put("events", cmp.Or(e.UserID, "none"), bytes.Clone(lines.Bytes())); err != nil {
			return err
		}
	}
	return lines.Err()
}
