// Command user-events is a function behind a Pub/Sub topic as a pipeline, by flags alone: events of one type, what
// Datastore knows of their user, BigQuery. All three are embedded here, so that it runs without an account:
//
//	go run ./examples/user-events
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/spf13/pflag"

	"github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/fakes/datastore"
	"github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/service"
)

const (
	topic        = "projects/demo/topics/events"
	subscription = "projects/demo/subscriptions/user-events"
	table        = "demo.analytics.events"
)

func main() {
	ctx, stop := service.Signals(context.Background())
	defer stop()
	service.Exit(run(ctx, "examples/user-events", os.Stdout, os.Stderr))
}

// run does it all once, in a folder of its own, and prints the table's rows.
func run(ctx context.Context, here string, out, log io.Writer) error {
	events := pubsub.New(pubsub.Options{})
	defer events.Close()
	eventsAt, published, err := publish(events, filepath.Join(here, "events.ndjson"))
	if err != nil {
		return err
	}
	users := datastore.New(datastore.Options{})
	defer users.Close()
	usersAt, err := users.Start()
	if err != nil {
		return err
	}
	know(users)
	rows := bigquery.New(bigquery.Options{})
	defer rows.Close()
	rowsAt, err := rows.Start()
	if err != nil {
		return err
	}
	if err := rows.CreateTable(schema()); err != nil {
		return err
	}

	// A subscription has no end: stop when every message has been acknowledged, which is when its row is there.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		if events.Wait(ctx, subscription, func(s pubsub.Stats) bool { return s.Acked >= int64(published) }) == nil {
			stop()
		}
	}()
	if err := pipeline(ctx, "pubsub://demo/user-events?endpoint="+eventsAt, "datastore://demo/User?endpoint="+usersAt, rowsAt, log); err != nil {
		return err
	}
	return printRows(rows, out)
}

// pipeline is the function: its handler's lines are beside the flags.
func pipeline(ctx context.Context, source, users, bigQuery string, log io.Writer) error {
	dir, err := os.MkdirTemp("", "user-events-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &service.QuerySettings{}
	flags := pflag.NewFlagSet("user-events", pflag.ContinueOnError)
	s.Register(flags)
	err = flags.Parse([]string{
		"--source", source,
		"--where", `type == "user_event"`, // if data.get('type') != 'user_event': return
		"--require", "id != nil", "--require", "user_id != nil", "--require", "timestamp != nil", // event['id'], …
		"--enrich", "user=" + users + "&on=user_id&default.tier=free", // datastore_client.get(key), user.get('tier', 'free')
		"--select", `id as event_id, user_id, type as event_type, timestamp, user.tier ?? "unknown" as user_tier, user.country ?? "unknown" as country`,
		"--sink", "bigquery://demo/analytics/events?endpoint=" + bigQuery, // bq.insert_rows_json(table, [enriched])
		"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--http", "",
	})
	if err != nil {
		return err
	}
	return service.RunQuery(ctx, s, log)
}

// publish puts each line of a file on the topic, for the subscription.
func publish(server *pubsub.Server, path string) (address string, published int, err error) {
	if address, err = server.Start(); err != nil {
		return "", 0, err
	}
	if err := server.CreateTopic(topic); err != nil {
		return "", 0, err
	}
	if err := server.CreateSubscription(&pubsubpb.Subscription{Name: subscription, Topic: topic}); err != nil {
		return "", 0, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", 0, err
	}
	var messages []pubsub.Message
	for line := range bytes.Lines(data) {
		messages = append(messages, pubsub.Message{Data: bytes.TrimSpace(line)})
	}
	_, err = server.Publish(topic, messages...)
	return address, len(messages), err
}

// know makes the users that Datastore has: u6 and u7 are nobody.
func know(server *datastore.Server) {
	for name, properties := range map[string]map[string]any{
		"u1": {"tier": "gold", "country": "DE"},
		"u2": {"country": "FR"},
		"u3": {"tier": "silver"},
		"u4": {"tier": "free", "country": "US", "since": int64(2019)},
		"u5": {},
	} {
		server.Put("User", name, properties)
	}
}

func schema() bigquery.Table {
	t := bigquery.Table{Name: table}
	for _, name := range []string{"event_id", "user_id", "event_type", "timestamp", "user_tier", "country"} {
		kind := "STRING"
		if name == "timestamp" {
			kind = "TIMESTAMP"
		}
		t.Columns = append(t.Columns, bigquery.Column{Name: name, Type: kind})
	}
	return t
}

func printRows(server *bigquery.Server, out io.Writer) error {
	rows, err := server.Rows(table)
	if err != nil {
		return err
	}
	var lines []string
	for _, row := range rows {
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		lines = append(lines, string(line))
	}
	slices.Sort(lines)
	_, err = fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}
