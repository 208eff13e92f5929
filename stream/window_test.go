package stream_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// A result that holds its window is readable JSON without more ado.
func TestWindowAsJSON(t *testing.T) {
	w := stream.Window{Start: epoch, End: epoch.Add(1500 * time.Millisecond)}
	data, err := json.Marshal(struct{ W stream.Window }{w})
	if want := `{"W":{"start":"2000-01-01T00:00:00Z","end":"2000-01-01T00:00:01.5Z"}}`; err != nil || string(data) != want {
		t.Errorf("%s, %v, want %s", data, err, want)
	}
	var back struct{ W stream.Window }
	if err := json.Unmarshal(data, &back); err != nil || back.W != w {
		t.Errorf("read back as %v, %v", back.W, err)
	}
	if err := json.Unmarshal([]byte(`{"W":{"start":"soon"}}`), &back); err == nil {
		t.Error("no error for a time that is none")
	}
}
