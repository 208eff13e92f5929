package bigquery

import (
	"fmt"
	"slices"
	"strings"
)

// Column is a column of a table that is to be made.
type Column struct {
	Name string
	Type string // INT64, STRING, …
	Key  bool   // part of the primary key
}

// TypeOf is the type of a column that takes every result of an aggregate function: of count, INT64; of sum,
// NUMERIC, which is exact; of top, JSON. What can be a text or a number is a STRING, which takes both.
func TypeOf(function string) string {
	switch function {
	case "count", "count_distinct":
		return "INT64"
	case "sum":
		return "NUMERIC"
	case "avg", "stddev", "quantile":
		return "FLOAT64"
	case "top":
		return "JSON"
	}
	return "STRING"
}

// Most columns of a primary key, and of a clustering, see
// https://cloud.google.com/bigquery/docs/primary-foreign-keys and
// https://cloud.google.com/bigquery/docs/clustered-tables#limitations.
const (
	mostKeys      = 16
	mostClustered = 4
)

// DDL returns the statement that makes a table, PROJECT.DATASET.TABLE, with these columns. Its rows are
// partitioned by the day of window_start, and clustered by the key's other columns, if there are such.
func DDL(table string, columns []Column) string {
	var lines, keys, clusters []string
	partition := ""
	for _, c := range columns {
		line := "  " + quoted(c.Name) + " " + c.Type
		window := c.Type == "TIMESTAMP" && (c.Name == "window_start" || c.Name == "window_end")
		if window {
			line += " NOT NULL"
		}
		if c.Name == "window_start" && window {
			partition = "\nPARTITION BY TIMESTAMP_TRUNC(window_start, DAY)"
		}
		if c.Key {
			keys = append(keys, quoted(c.Name))
			if !window && len(clusters) < mostClustered {
				clusters = append(clusters, quoted(c.Name))
			}
		}
		lines = append(lines, line)
	}
	if n := len(keys); n > 0 && n <= mostKeys {
		lines = append(lines, "  PRIMARY KEY ("+strings.Join(keys, ", ")+") NOT ENFORCED")
	}
	out := fmt.Sprintf("CREATE TABLE %s (\n%s\n)%s", "`"+strings.ReplaceAll(table, "`", "")+"`", strings.Join(lines, ",\n"), partition)
	if len(clusters) > 0 {
		out += "\nCLUSTER BY " + strings.Join(clusters, ", ")
	}
	return out + ";\n"
}

// reserved are words of GoogleSQL that rows may well have for a column, see
// https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical#reserved_keywords.
var reserved = strings.Fields(`all and any array as asc at between by case cast create cross cube current default
define desc distinct else end enum escape except exists extract false fetch following for from full group
grouping groups hash having if ignore in inner intersect interval into is join lateral left like limit lookup
merge natural new no not null nulls of on or order outer over partition preceding proto range recursive
respect right rollup rows select set some struct tablesample then to treat true unbounded union unnest using
when where window with within`)

// quoted is a name as SQL takes it.
func quoted(name string) string {
	plain := name != "" && !slices.Contains(reserved, strings.ToLower(name))
	for i, r := range name {
		plain = plain && (r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && r >= '0' && r <= '9')
	}
	if plain {
		return name
	}
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}
