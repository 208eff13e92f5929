//go:build integration

package service_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	fake "github.com/millstream/millstream/fakes/eventhubs"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// Rows and dead letters go to hubs of their own, and check says what that means. A row too large for its
// hub is a dead letter. A hub that is not there is refused by one line.
func TestIntegrationEventHubsSink(t *testing.T) {
	server, err := fake.Start(t.Context(), fake.Options{MaxMessageSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, hub := range []string{"rows", "letters"} {
		if err := server.CreateHub(hub, 2); err != nil {
			t.Fatal(err)
		}
	}
	at := func(hub string) string { return "eventhubs://plant/" + hub + "?endpoint=" + server.Endpoint() }
	in := t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "a.ndjson"), []byte("{\"n\":0}\nno JSON\n{\"n\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings(t, "--source", in, "--until-end", "--dead-letter", at("letters"))
	s.Sinks = []string{at("rows")}
	s.Checkpoint = t.TempDir()

	var said bytes.Buffer
	if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, []string{"n"}, &said); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{": at least once: ", "deduplicate by it", "Azure Event Hubs Data Sender on event hub plant/rows", "on event hub plant/letters"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("check does not say %q:\n%s", want, said.String())
		}
	}

	var log bytes.Buffer
	if err := service.RunQuery(t.Context(), s, &log); err != nil {
		t.Fatal(err, log.String())
	}
	stored := func(hub string) (rows []map[string]any) {
		t.Helper()
		for _, partition := range []string{"0", "1"} {
			events, err := server.Events(hub, partition)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				var row map[string]any
				if err := json.Unmarshal(e.Data, &row); err != nil || row["_id"] == nil {
					t.Errorf("%.200s: %v", e.Data, err)
				}
				rows = append(rows, row)
			}
		}
		return rows
	}
	var n []float64
	for _, row := range stored("rows") {
		n = append(n, row["n"].(float64))
	}
	slices.Sort(n)
	if !slices.Equal(n, []float64{0, 1}) {
		t.Errorf("rows %v\n%s", n, log.String())
	}
	if letters := stored("letters"); len(letters) != 1 {
		t.Errorf("%d dead letters\n%s", len(letters), log.String())
	}

	large := `{"n":2,"pad":"` + strings.Repeat("x", 70<<10) + `"}`
	if err := os.WriteFile(filepath.Join(in, "a.ndjson"), []byte("{\"n\":0}\n"+large+"\n{\"n\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Checkpoint, s.DeadLetter = t.TempDir(), t.TempDir()
	if err := service.RunQuery(t.Context(), s, &log); err != nil {
		t.Fatal(err, log.String())
	}
	files, err := filepath.Glob(filepath.Join(s.DeadLetter, "*.ndjson"))
	if err != nil || len(files) != 1 || len(stored("rows")) != 4 {
		t.Fatalf("%d rows, letters in %v, %v\n%s", len(stored("rows")), files, err, log.String())
	}
	letter, err := os.ReadFile(files[0])
	if err != nil || !strings.HasPrefix(string(letter), `{"reason":"rejected by the sink"`) || !strings.Contains(string(letter), "more than event hub rows takes in one event") {
		t.Errorf("%.300s, %v", letter, err)
	}

	s.Sinks = []string{at("nosuch")}
	if err := service.RunQuery(t.Context(), s, &log); err == nil || err.Error() != "--sink: event hubs: there is no event hub nosuch in namespace plant" {
		t.Error(err)
	}
}
