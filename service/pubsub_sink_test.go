package service_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// A topic that cannot be meant, or is not there, is refused by one line.
func TestPubSubSinkIsRefused(t *testing.T) {
	fake := pstest.NewServer()
	t.Cleanup(func() { fake.Close() })
	for sink, want := range map[string]string{
		"pubsub://orders-prod":                     "pubsub://orders-prod: names no topic: want pubsub://PROJECT/TOPIC",
		"pubsub:///clicks":                         "pubsub:///clicks: names no topic: want pubsub://PROJECT/TOPIC",
		"pubsub://p/a/b":                           `pubsub: topic "a/b": want a name of 3 to 255 letters, digits and - . _ ~ +, a letter first`,
		"pubsub://p/clicks?orderin=true":           "pubsub://p/clicks?orderin=true: has no parameter orderin: did you mean ordering?",
		"pubsub://p/clicks?ordering=yes":           "pubsub://p/clicks?ordering=yes: ordering=yes: want true or false",
		"pubsub://p/clicks?endpoint=nowhere":       `pubsub: endpoint "nowhere": want an address such as 127.0.0.1:8085`,
		"pubsub://p/clicks?endpoint=" + fake.Addr:  "pubsub: topic projects/p/topics/clicks does not exist",
		"pub-sub://p/clicks?endpoint=" + fake.Addr: "pub-sub://p/clicks?endpoint=" + fake.Addr + ": unknown kind pub-sub: did you mean pubsub?",
	} {
		s := settings(t, "--source", t.TempDir())
		s.Sinks = []string{sink}
		var log bytes.Buffer
		err := service.RunQuery(t.Context(), s, &log)
		if err == nil || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", sink, err)
		}
		var setting *service.SettingError
		if !errors.As(err, &setting) || setting.Setting != "--sink" {
			t.Errorf("%s: %T %v", sink, err, err)
		}
	}
}

// Rows and dead letters go to topics of their own, and check says what that means.
func TestPubSubSink(t *testing.T) {
	fake := pstest.NewServer()
	t.Cleanup(func() { fake.Close() })
	t.Setenv("PUBSUB_EMULATOR_HOST", fake.Addr)
	for _, name := range []string{"rows", "letters"} {
		if _, err := fake.GServer.CreateTopic(t.Context(), &pb.Topic{Name: "projects/p/topics/" + name}); err != nil {
			t.Fatal(err)
		}
	}
	in := t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "a.ndjson"), []byte("{\"n\":0}\nno JSON\n{\"n\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings(t, "--source", in, "--until-end", "--dead-letter", "pubsub://p/letters")
	s.Sinks = []string{"pubsub://p/rows?ordering=true"}
	s.Checkpoint = t.TempDir()

	var said bytes.Buffer
	if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, []string{"n"}, &said); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"pubsub://p/rows?ordering=true: at least once: ", "deduplicate by it",
		"pubsub.topics.publish on topic p/rows (role Pub/Sub Publisher)", "on topic p/letters",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("check does not say %q:\n%s", want, said.String())
		}
	}

	var log bytes.Buffer
	if err := service.RunQuery(t.Context(), s, &log); err != nil {
		t.Fatal(err, log.String())
	}
	got := make(map[string][]string)
	for _, m := range fake.Messages() {
		var row struct {
			ID     string `json:"_id"`
			N      int
			Reason string
		}
		if err := json.Unmarshal(m.Data, &row); err != nil || row.ID == "" {
			t.Errorf("%s: %v", m.Data, err)
		}
		got[m.Topic] = append(got[m.Topic], fmt.Sprint(row.N, row.Reason))
	}
	if len(got["projects/p/topics/rows"]) != 2 || len(got["projects/p/topics/letters"]) != 1 {
		t.Errorf("%v\n%s", got, log.String())
	}
}
