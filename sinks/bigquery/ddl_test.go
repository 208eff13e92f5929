package bigquery_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millstream/millstream/sinks/bigquery"
)

func ExampleDDL() {
	fmt.Print(bigquery.DDL("shop.sales.totals", []bigquery.Column{
		{Name: "window_start", Type: "TIMESTAMP", Key: true}, {Name: "window_end", Type: "TIMESTAMP", Key: true},
		{Name: "order", Type: "STRING", Key: true}, {Name: "n", Type: "INT64"}, {Name: "a-b", Type: bigquery.TypeOf("sum")},
	}))
	// Output:
	// CREATE TABLE `shop.sales.totals` (
	//   window_start TIMESTAMP NOT NULL,
	//   window_end TIMESTAMP NOT NULL,
	//   `order` STRING,
	//   n INT64,
	//   `a-b` NUMERIC,
	//   PRIMARY KEY (window_start, window_end, `order`) NOT ENFORCED
	// )
	// PARTITION BY TIMESTAMP_TRUNC(window_start, DAY)
	// CLUSTER BY `order`;
}

// Names cannot leave their quotes, and limits are kept.
func TestDDL(t *testing.T) {
	columns := []bigquery.Column{{Name: "x` INT64); DROP TABLE y; --", Type: "STRING"}}
	if got := bigquery.DDL("p.d.`t", columns); got != "CREATE TABLE `p.d.t` (\n  `x\\` INT64); DROP TABLE y; --` STRING\n);\n" {
		t.Error(got)
	}
	for i := range 17 {
		columns = append(columns, bigquery.Column{Name: fmt.Sprint("k", i), Type: "STRING", Key: true})
	}
	got := bigquery.DDL("p.d.t", columns)
	if strings.Contains(got, "PRIMARY") || !strings.HasSuffix(got, "\nCLUSTER BY k0, k1, k2, k3;\n") {
		t.Error(got)
	}
}
