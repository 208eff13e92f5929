package query

import (
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Result is a row before it is encoded: the totals of a key and window, or a selected record.
type Result struct {
	windows.Result
	row []byte
}

// result makes the row of an event without windows.
func (q *Query) result(e *stream.Event[Event]) (Result, error) {
	r := Result{row: e.Value.row()}
	r.Key = strings.Clone(e.Key)
	return r, nil
}

// encode writes a result as one line of JSON.
//
//	{"window_start":"2026-01-01T00:00:00Z","window_end":"…", keys, aggregates}
func (q *Query) encode(r *Result) (stream.Row, error) {
	row := stream.Row{Key: readableKey(r.Key, len(q.keys)), Data: r.row}
	if !q.windowed {
		return row, nil
	}
	row.Window = r.Window
	out := make([]byte, 0, 96+len(r.Key)+32*len(q.heads))
	out = append(out, `{"window_start":"`...)
	out = appendTime(out, r.Window.Start)
	out = append(out, `","window_end":"`...)
	out = appendTime(out, r.Window.End)
	out = append(out, '"')
	n := len(q.keys)
	keyParts(r.Key, n, func(i int, part string, isString bool) {
		out = append(out, q.heads[i]...)
		if isString {
			out = appendString(out, part)
		} else {
			out = append(out, part...)
		}
	})
	for i := range q.aggregates {
		out = append(out, q.heads[n+i]...)
		out = r.AppendValue(out, i)
	}
	row.Data = append(out, '}')
	return row, nil
}

// rowOperator is the operator without windows.
type rowOperator struct {
	stream.Map[Event, Result]
	plan *stream.Plan
}

// Plan implements stream.Operator.
func (o *rowOperator) Plan() stream.Plan { return *o.plan }

// windowOperator gives the columns of package windows our result type and our plan.
type windowOperator struct {
	columns *windows.Columns[Event]
	plan    *stream.Plan
}

// Lane implements stream.Operator.
func (o *windowOperator) Lane() stream.LaneState[Event, Result] {
	return windowLane{o.columns.Lane()}
}

// Merger implements stream.Operator.
func (o *windowOperator) Merger() stream.MergeState[Result] { return windowMerge{o.columns.Merger()} }

// Validate implements stream.Operator.
func (o *windowOperator) Validate() error { return o.columns.Validate() }

// Plan implements stream.Operator.
func (o *windowOperator) Plan() stream.Plan { return *o.plan }

type windowLane struct {
	stream.LaneState[Event, windows.Result]
}

// Rows implements stream.LaneState: windows are complete only in the merger.
func (windowLane) Rows() []Result { return nil }

type windowMerge struct {
	stream.MergeState[windows.Result]
}

// Advance implements stream.MergeState.
func (m windowMerge) Advance(to stream.Instant, emit func(*Result) error) error {
	var out Result
	return m.MergeState.Advance(to, func(r *windows.Result) error {
		out.Result = *r
		return emit(&out)
	})
}

// Slice implements stream.Operator.
func (o *windowOperator) Slice() time.Duration { return o.columns.Slice() }
