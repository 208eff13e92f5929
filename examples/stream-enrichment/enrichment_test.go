package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// Every event that has an id and a user is delivered once, with what is known of its user.
func TestEnrichment(t *testing.T) {
	var out, log bytes.Buffer
	if err := run(t.Context(), ".", &out, &log); err != nil {
		t.Fatal(err, log.String())
	}
	head, rows, _ := strings.Cut(out.String(), "\n")
	if !strings.Contains(head, "Firehose records, billed as ") {
		t.Error(head)
	}
	known := map[string][2]string{"u1": {"gold", "DE"}, "u2": {"free", "FR"}, "u3": {"free", "unknown"}, "u4": {"silver", "US"},
		"u5": {"unknown", "unknown"}, "u6": {"unknown", "unknown"}}
	seen := make(map[string]bool)
	for lines := json.NewDecoder(strings.NewReader(rows)); ; {
		var row struct {
			ID string `json:"_id"`
			Row
		}
		if err := lines.Decode(&row); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		want := known[row.UserID]
		if row.ID == "" || row.UserTier != want[0] || row.Country != want[1] || row.EventType == "" || row.Timestamp == "" || seen[row.EventID] {
			t.Errorf("%+v, want %s", row, want)
		}
		seen[row.EventID] = true
	}
	if len(seen) != 60 || !strings.Contains(log.String(), "records_in=62 contributed=60 filtered=0 late=0 dead_lettered=2 rows_out=60") {
		t.Errorf("%d rows\n%s", len(seen), &log)
	}
}
