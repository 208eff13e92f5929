package streamtest_test

import (
	"fmt"
	"strings"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

func ExampleFeed() {
	shout := &stream.Pipeline[string, string]{
		Decode: func(r *stream.Record) (stream.Event[string], error) {
			return stream.Event[string]{Value: string(r.Data)}, nil
		},
		Keep:     func(e *stream.Event[string]) bool { return e.Value != "hush" },
		Operator: &stream.Map[string, string]{Func: func(e *stream.Event[string]) (string, error) { return strings.ToUpper(e.Value), nil }},
		Encode:   func(s *string) (stream.Row, error) { return stream.Row{Data: []byte(*s)}, nil },
	}
	rows, ledger := streamtest.Feed(shout, streamtest.Lines("hello\nhush\nworld")...)
	for _, row := range rows {
		fmt.Println(string(row.Data))
	}
	fmt.Println(ledger.RecordsIn, "in,", ledger.Filtered, "filtered,", ledger.RowsOut, "out")
	// Output:
	// HELLO
	// WORLD
	// 3 in, 1 filtered, 2 out
}
