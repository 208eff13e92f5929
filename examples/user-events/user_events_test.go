package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/fakes/datastore"
)

// event is a row of the table.
type event struct {
	ID      string `json:"event_id"`
	UserID  string `json:"user_id"`
	Type    string `json:"event_type"`
	At      string `json:"timestamp"`
	Tier    string `json:"user_tier"`
	Country string `json:"country"`
}

// byHand does what the handler does, one message after the other.
func byHand(t *testing.T) map[string]event {
	t.Helper()
	users := map[string]map[string]string{"u1": {"tier": "gold", "country": "DE"}, "u2": {"country": "FR"}, "u3": {"tier": "silver"},
		"u4": {"tier": "free", "country": "US"}, "u5": {}}
	get := func(user map[string]string, name, otherwise string) string {
		if v, ok := user[name]; ok {
			return v
		}
		return otherwise
	}
	data, err := os.ReadFile("events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]event{}
	for line := range strings.Lines(string(data)) {
		var in map[string]string
		if json.Unmarshal([]byte(line), &in) != nil || in["type"] != "user_event" || in["user_id"] == "" {
			continue
		}
		e := event{in["id"], in["user_id"], in["type"], in["timestamp"], "unknown", "unknown"}
		if user, ok := users[e.UserID]; ok {
			e.Tier, e.Country = get(user, "tier", "free"), get(user, "country", "unknown")
		}
		rows[e.ID] = e
	}
	return rows
}

// same compares what was printed with what the handler would have written.
func same(t *testing.T, printed string) {
	t.Helper()
	got := map[string]event{}
	for line := range strings.Lines(printed) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err, line)
		}
		if _, twice := got[e.ID]; twice {
			t.Errorf("%s is there twice", e.ID)
		}
		got[e.ID] = e
	}
	if want := byHand(t); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestUserEvents(t *testing.T) {
	var out, log bytes.Buffer
	if err := run(t.Context(), ".", &out, &log); err != nil {
		t.Fatal(err, log.String())
	}
	same(t, out.String())
	if !strings.Contains(log.String(), "records_in=62 contributed=40 filtered=20 late=0 dead_lettered=2 rows_out=40") {
		t.Error(log.String())
	}
}

// The same from Google's own stand-in for Pub/Sub.
func TestUserEventsFromPstest(t *testing.T) {
	events := pstest.NewServer()
	defer events.Close()
	if _, err := events.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := events.GServer.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: topic, AckDeadlineSeconds: 60}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		events.Publish(topic, bytes.TrimSpace(line), nil)
	}
	users := datastore.New(datastore.Options{})
	defer users.Close()
	usersAt, err := users.Start()
	if err != nil {
		t.Fatal(err)
	}
	know(users)
	rows := bigquery.New(bigquery.Options{})
	defer rows.Close()
	rowsAt, err := rows.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.CreateTable(schema()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	go func() {
		look := time.NewTicker(20 * time.Millisecond)
		defer look.Stop()
		for ctx.Err() == nil {
			<-look.C
			acked := 0
			for _, m := range events.Messages() {
				if m.Acks > 0 {
					acked++
				}
			}
			if acked == 62 {
				stop()
			}
		}
	}()
	var log, out bytes.Buffer
	if err := pipeline(ctx, "pubsub://demo/user-events?endpoint="+events.Addr, "datastore://demo/User?endpoint="+usersAt, rowsAt, &log); err != nil {
		t.Fatal(err, log.String())
	}
	if err := printRows(rows, &out); err != nil {
		t.Fatal(err)
	}
	same(t, out.String())
}
