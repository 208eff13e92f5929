package windows_test

import (
	"fmt"
	"time"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Orders per shop and minute: the accumulator is a plain struct, and the result another.
func ExampleAggregation() {
	type order struct{ Cents int64 }
	type takings struct{ Orders, Cents int64 }
	type result struct {
		Shop   string
		Minute time.Time
		takings
	}
	operator := &windows.Aggregation[order, takings, result]{
		Windows: windows.Tumbling(time.Minute),
		Add:     func(acc *takings, e *stream.Event[order]) { acc.Orders++; acc.Cents += e.Value.Cents },
		Merge:   func(dst, src *takings) { dst.Orders += src.Orders; dst.Cents += src.Cents },
		Emit: func(shop string, w stream.Window, acc *takings) result {
			return result{shop, w.Start.Time(), *acc}
		},
	}
	fmt.Println(operator.Windows, operator.Validate())
	// Output: tumbling:1m <nil>
}

// A field that is not exported would be gone after a restart, so it is refused at the start.
func ExampleAggregation_Validate() {
	type counter struct{ n int }
	operator := &windows.Aggregation[string, counter, int]{
		Windows: windows.Session(30 * time.Second),
		Add:     func(acc *counter, _ *stream.Event[string]) { acc.n++ },
		Merge:   func(dst, src *counter) { dst.n += src.n },
		Emit:    func(_ string, _ stream.Window, acc *counter) int { return acc.n },
	}
	fmt.Println(operator.Validate())
	// Output: windows.Aggregation: accumulator windows_test.counter.n is not exported, so a checkpoint would lose it: export the field; or implement MarshalBinary and UnmarshalBinary on *windows_test.counter
}

func ExampleParse() {
	w, err := windows.Parse("hopping:10s/1m")
	fmt.Println(w, err)
	w, err = windows.Parse("hopping:25s/10s")
	fmt.Println(w, w.Slice(), err)
	// Output:
	// hopping:10s/1m window hopping:10s/1m: the hop is larger than the size, so events between two windows would be in none; use tumbling:10s, or a hop of at most 10s
	// hopping:25s/10s 5s <nil>
}
