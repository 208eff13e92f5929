// Command orders totals orders per customer and minute. It has all the flags of the ready-made service
// that do not describe the query:
//
//	go run ./examples/orders --source examples/orders/orders.ndjson --until-end --sink stdout: --checkpoint mem:
package main

import (
	"github.com/millstream/millstream/examples/orders/pipeline"
	"github.com/millstream/millstream/service"
)

func main() { service.Main(pipeline.Totals()) }
