package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

func TestJSONLogsAreReadable(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	var out bytes.Buffer
	logger, err := newLogger(&Settings{LogFormat: "json"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 12, 0, 0, 500e6, time.UTC)
	logger.With("lease", 15*time.Second).Info("text", "in", 1600*time.Millisecond, "watermark", stream.Instant(at.UnixNano()), "begun", stream.Beginning,
		"since", at, "position", stream.Position{Number: 7}, "error", errors.New("no"), "records", int64(1600000000), slog.Group("of", "age", time.Minute))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"lease": "15s", "in": "1.6s", "watermark": "2026-11-23T12:00:00.5Z", "begun": stream.Beginning.String(),
		"since": "2026-11-23T12:00:00.5Z", "position": stream.Position{Number: 7}.String(), "error": "no", "records": 1.6e9} {
		if got[name] != want {
			t.Errorf("%s is %v, not %v", name, got[name], want)
		}
	}
	if of, _ := got["of"].(map[string]any); of["age"] != "1m0s" {
		t.Errorf("in a group: %v", got["of"])
	}
}

// Without readable these are nanoseconds, which is why it is there.
func TestPlainJSONLogsAreNot(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("text", "in", 1600*time.Millisecond)
	if !bytes.Contains(out.Bytes(), []byte(`"in":1600000000`)) {
		t.Errorf("%s", out.Bytes())
	}
}
