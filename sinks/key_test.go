package sinks_test

import (
	"context"
	"slices"
	"testing"

	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

type keys []string

func (k *keys) Deliver(_ context.Context, _ stream.CheckpointID, rows []stream.Row) error {
	for _, r := range rows {
		*k = append(*k, r.Key)
	}
	return nil
}

func TestKeyedBy(t *testing.T) {
	rows := []stream.Row{{Key: "group", Data: []byte(`{"a":"x","u":{"id":7}}`)}, {Data: []byte(`{"a":12.50,"u":{"id":"é"}}`)}, {Data: []byte(`{"a":null,"u":3}`)}, {Data: []byte(`text`)}}
	for field, want := range map[string][]string{"a": {"x", "12.50", "", ""}, "u.id": {"7", "é", "", ""}, "b": {"", "", "", ""}} {
		var got keys
		if err := sinks.KeyedBy(field, &got).Deliver(t.Context(), stream.CheckpointID{}, rows); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", field, got, err, want)
		}
	}
	if rows[0].Key != "group" {
		t.Error("the caller's rows have changed")
	}
}
