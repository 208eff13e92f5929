package query

import "strings"

// Functions says, for each of Columns, which aggregate function makes it: "sum". It is empty for columns of
// windows, of keys and of --select.
func (q *Query) Functions() []string {
	out := make([]string, len(q.columns))
	for i := range q.aggregates {
		name, _, _ := strings.Cut(q.aggregates[i].text, "(")
		out[len(out)-len(q.aggregates)+i] = strings.TrimSpace(name)
	}
	return out
}
