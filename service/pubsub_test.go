package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// fakePubSub has a topic, and subscriptions of it.
func fakePubSub(t *testing.T, subscriptions ...*pb.Subscription) (server *pubsub.Server, address string) {
	t.Helper()
	server = pubsub.New(pubsub.Options{})
	t.Cleanup(server.Close)
	address, err := server.Start()
	if err == nil {
		err = server.CreateTopic("projects/p/topics/clicks")
	}
	for _, s := range subscriptions {
		s.Topic = "projects/p/topics/clicks"
		if err == nil {
			err = server.CreateSubscription(s)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return server, address
}

// A subscription that cannot be meant, or is not there, or cannot be read, is refused by one line.
func TestPubSubIsRefused(t *testing.T) {
	_, address := fakePubSub(t, &pb.Subscription{Name: "projects/p/subscriptions/clicks"},
		&pb.Subscription{Name: "projects/p/subscriptions/slow", RetryPolicy: &pb.RetryPolicy{MinimumBackoff: durationpb.New(10 * time.Second), MaximumBackoff: durationpb.New(10 * time.Minute)}})
	at := "?endpoint=" + address
	for _, c := range []struct{ source, setting, want string }{
		{"pubsub://orders-prod", "--source", "pubsub://orders-prod: names no subscription: want pubsub://PROJECT/SUBSCRIPTION"},
		{"pubsub:///clicks", "--source", "pubsub:///clicks: names no subscription: want pubsub://PROJECT/SUBSCRIPTION"},
		{"pubsub://p/a/b", "--source", `pubsub: subscription "a/b": want a name of 3 to 255 letters, digits and - . _ ~ +, a letter first`},
		{"pubsub://p/clicks,clicks" + at, "--source", "pubsub: subscription clicks is named twice"},
		{"pubsub://p/clicks?start=latest", "--source", "pubsub://p/clicks?start=latest: has no parameter start"},
		{"pubsub://p/clicks?shared=0", "--source", "pubsub://p/clicks?shared=0: shared=0: want a number from 1 on"},
		{"pubsub://p/clicks?client=java", "--source", "client=java: it is own (the default) or sdk"},
		{"pubsub://p/missing" + at, "--source", "pubsub: subscription projects/p/subscriptions/missing does not exist"},
		{"pubsub://p/slow" + at, "--source", "raise --dedupe-for to 12m0s"},
		{"pubsub://p/clicks?endpoint=127.0.0.1:1", "--source", "connection refused"},
		{"pubsub://p/clicks" + at + " --until-end", "--until-end", "is not for pubsub: a subscription has no end"},
	} {
		began := time.Now()
		args := append([]string{"--source"}, strings.Fields(c.source)...)
		var log bytes.Buffer
		err := service.RunQuery(t.Context(), settings(t, args...), &log)
		var refused *service.SettingError
		if !errors.As(err, &refused) || refused.Setting != c.setting || !strings.Contains(refused.Problem, c.want) || strings.Contains(refused.Problem, "\n") {
			t.Errorf("%s: %v", c.source, err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%s: after %s", c.source, took)
		}
	}
}

// Two subscriptions are two partitions of one run; check says what their totals are worth.
func TestPubSub(t *testing.T) {
	server, address := fakePubSub(t, &pb.Subscription{Name: "projects/p/subscriptions/even", Filter: `attributes.parity = "0"`},
		&pb.Subscription{Name: "projects/p/subscriptions/odd", Filter: `attributes.parity = "1"`})
	t.Setenv("PUBSUB_EMULATOR_HOST", address)
	for source, wants := range map[string][]string{
		"pubsub://p/even,odd": {
			"pubsub://p/even,odd: readable, 2 partitions", "exactly once, for messages that Pub/Sub delivers again within --dedupe-for (10m0s): ",
			"pubsub.subscriptions.consume on subscription p/even,odd (role Pub/Sub Subscriber)"},
		"pubsub://p/even?shared=3": {"readable, 3 partitions", ": at least once: shared=3"},
	} {
		s := settings(t, "--source", source)
		s.Checkpoint = t.TempDir()
		var said bytes.Buffer
		if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, []string{"n"}, &said); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(said.String(), want) {
				t.Errorf("check does not say %q:\n%s", want, said.String())
			}
		}
	}

	for i := range 500 {
		if _, err := server.Publish("projects/p/topics/clicks", pubsub.Message{Data: fmt.Appendf(nil, `{"n":%d}`, i), Attributes: map[string]string{"parity": fmt.Sprint(i % 2)}}); err != nil {
			t.Fatal(err)
		}
	}
	out := t.TempDir()
	s := settings(t, "--source", "pubsub://p/even,odd", "--checkpoint-every", "100ms")
	s.Checkpoint, s.Sinks = t.TempDir(), []string{out}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() {
		defer stop()
		for _, name := range []string{"even", "odd"} {
			if err := server.Wait(ctx, "projects/p/subscriptions/"+name, func(s pubsub.Stats) bool { return s.Acked == 250 }); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}()
	var log bytes.Buffer
	if err := service.RunQuery(ctx, s, &log); err != nil {
		t.Fatal(err, log.String())
	}
	files, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rows += bytes.Count(data, []byte("\n"))
	}
	if rows != 500 {
		t.Errorf("%d rows\n%s", rows, log.String())
	}
}
