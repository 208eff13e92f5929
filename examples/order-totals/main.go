// Command order-totals reads orders from one Kinesis stream and puts totals for each id and minute on
// another, by flags alone. Kinesis is embedded here, so that it runs without an account:
//
//	go run ./examples/order-totals
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/service"
)

func main() {
	ctx, stop := service.Signals(context.Background())
	defer stop()
	service.Exit(run(ctx, "examples/order-totals", os.Stdout, os.Stderr))
}

// run does it all once, in a folder of its own, and prints what is on the second stream.
func run(ctx context.Context, here string, out, log io.Writer) error {
	dir, err := os.MkdirTemp("", "order-totals-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server := kinesis.New(kinesis.Options{})
	defer server.Close()
	endpoint, err := server.Start()
	if err != nil {
		return err
	}
	if err := load(server, filepath.Join(here, "orders.ndjson")); err != nil {
		return err
	}
	if err := server.CreateStream("processed-stream", 2); err != nil {
		return err
	}

	// The embedded service takes any credentials, but takes some.
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if err := os.Setenv(name, "embedded"); err != nil {
			return err
		}
	}
	s := &service.QuerySettings{}
	flags := pflag.NewFlagSet("order-totals", pflag.ContinueOnError)
	s.Register(flags)
	err = flags.Parse([]string{
		"--source", "kinesis://orders?region=us-east-1&endpoint=" + endpoint, "--until-end",
		"--key", "id", "--time", "timestamp", "--window", "tumbling:1m",
		"--aggregate", "count() as count, sum(value) as total_value, min(timestamp) as min_timestamp, max(timestamp) as max_timestamp",
		"--sink", "kinesis://processed-stream?region=us-east-1&endpoint=" + endpoint,
		"--checkpoint", filepath.Join(dir, "state"), "--http", "",
	})
	if err != nil {
		return err
	}
	if err := service.RunQuery(ctx, s, log); err != nil {
		return err
	}
	records, err := server.Records("processed-stream")
	if err != nil {
		return err
	}
	rows, err := server.UserRecords("processed-stream")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d totals in %d Kinesis records:\n", len(rows), len(records))
	for _, r := range rows {
		fmt.Fprintf(out, "%s\n", r.Data)
	}
	return nil
}

// load puts each order under its id.
func load(server *kinesis.Server, path string) error {
	if err := server.CreateStream("orders", 4); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var order struct{ ID string }
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			return err
		}
		if _, _, err := server.Put("orders", order.ID, bytes.Clone(lines.Bytes())); err != nil {
			return err
		}
	}
	return lines.Err()
}
