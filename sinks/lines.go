// Package sinks has what the drivers below it share.
package sinks

import (
	"bytes"
	"encoding/json"

	"github.com/millstream/millstream/stream"
)

// Lines encodes rows as newline-delimited JSON: the bytes depend on the rows alone, so that whoever
// delivers them again writes the same. A row that has line breaks, such as indented JSON, loses its
// white space; one that is then not JSON is no line, and stands in the *stream.Rejected, which is nil
// when all rows were taken. A row is otherwise copied as it is.
func Lines(rows []stream.Row) ([]byte, *stream.Rejected) {
	var size int
	for i := range rows {
		size += len(rows[i].Data) + 1
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	var rejected *stream.Rejected
	for i := range rows {
		row := rows[i].Data
		switch bytes.IndexByte(row, '\n') {
		case -1:
			out.Write(row)
		default:
			if err := json.Compact(out, row); err != nil { // which then wrote nothing
				if rejected == nil {
					rejected = new(stream.Rejected)
				}
				rejected.Rows = append(rejected.Rows, stream.RejectedRow{Index: i, Reason: "it has line breaks and is not one JSON value: " + err.Error()})
				continue
			}
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), rejected
}
