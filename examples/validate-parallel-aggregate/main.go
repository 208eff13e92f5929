// Command validate-parallel-aggregate is a state machine of functions (validate, two that run in parallel, one
// that brings their results together) as one pipeline, by flags alone. The two that ran in parallel are
// interfaces over HTTP here, served by the program itself:
//
//	go run ./examples/validate-parallel-aggregate
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/service"
)

func main() {
	ctx, stop := service.Signals(context.Background())
	defer stop()
	service.Exit(run(ctx, "examples/validate-parallel-aggregate", os.Stdout, os.Stderr))
}

// segments and prices are what the two interfaces know.
var (
	segments = map[string]string{"c0": "trade", "c1": "trade", "c2": "home", "c3": "home", "c4": "home", "c5": "home", "c6": "trade", "c7": "home", "c8": "home", "c9": "school"}
	prices   = map[string]int{"p0": 250, "p1": 990, "p2": 120, "p3": 475, "p4": 2999, "p5": 60, "p6": 1250, "p7": 310}
)

// run does it all once, in a folder of its own, and prints the totals.
func run(ctx context.Context, here string, out, log io.Writer) error {
	dir, err := os.MkdirTemp("", "validate-parallel-aggregate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	api, err := serve(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	s := &service.QuerySettings{}
	flags := pflag.NewFlagSet("validate-parallel-aggregate", pflag.ContinueOnError)
	s.Register(flags)
	err = flags.Parse([]string{
		"--source", filepath.Join(here, "orders.ndjson"), "--until-end",
		// ValidateInput
		"--require", "customer != nil", "--require", "quantity > 0",
		// ProcessPart1 and ProcessPart2
		"--enrich", "buyer=" + api.url + "/customers/{key}?on=customer&probe=c0&default.segment=other",
		"--enrich", "item=" + api.url + "/products?on=product&probe=p0&missing=dead-letter",
		// AggregateResults
		"--key", "segment", "--time", "at", "--window", "tumbling:1m",
		"--aggregate", "count() as orders, sum(quantity) as pieces, sum(quantity * item.price) as cents",
		"--select", `*, buyer.segment ?? "unknown" as segment`,
		"--sink", filepath.Join(dir, "totals"), "--dead-letter", filepath.Join(dir, "dead-letter"), "--checkpoint", "mem:", "--http", "",
	})
	if err != nil {
		return err
	}
	if err := service.RunQuery(ctx, s, log); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(dir, "totals", "*.ndjson"))
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%d requests for customers, %d for products\n", api.customers.Load(), api.products.Load())
	return err
}

// interfaces are the two functions, as services.
type interfaces struct {
	*http.Server
	url                 string
	customers, products atomic.Int64
}

func serve(ctx context.Context) (*interfaces, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	api := &interfaces{url: "http://" + l.Addr().String()}
	mux := http.NewServeMux()
	// One customer at a time.
	mux.HandleFunc("GET /customers/{id}", func(w http.ResponseWriter, r *http.Request) {
		api.customers.Add(1)
		id := r.PathValue("id")
		segment, known := segments[id]
		switch {
		case known:
			answer(w, map[string]string{"segment": segment})
		case id == "c10":
			answer(w, map[string]string{"name": "Without a segment"})
		default:
			http.NotFound(w, r)
		}
	})
	// Many products at once.
	mux.HandleFunc("POST /products", func(w http.ResponseWriter, r *http.Request) {
		api.products.Add(1)
		var ids []string
		if err := json.NewDecoder(r.Body).Decode(&ids); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		found := map[string]map[string]int{}
		for _, id := range ids {
			if price, known := prices[strings.ToLower(id)]; known {
				found[id] = map[string]int{"price": price}
			}
		}
		answer(w, found)
	})
	api.Server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = api.Serve(l) }() // until it is closed
	return api, nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone; there is nobody to tell
}
