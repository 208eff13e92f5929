// Command replay starts an embedded Kinesis on loopback, puts a file's lines on a stream, and waits. It
// prints the --source to read them with.
//
//	go run ./examples/flights/replay examples/flights/flights.ndjson
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/millstream/millstream/fakes/kinesis"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: replay FILE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := replay(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func replay(ctx context.Context, path string) error {
	server := kinesis.New(kinesis.Options{})
	endpoint, err := server.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	n, err := load(server, path)
	if err != nil {
		return err
	}
	fmt.Printf("%d records in 4 shards. Read them with\n\n  --source 'kinesis://flights?region=us-east-1&endpoint=%s'\n\nCtrl-C ends it.\n", n, endpoint)
	<-ctx.Done()
	return nil
}

// load puts each line under its flight's origin, so that an airport's flights stay in one shard.
func load(server *kinesis.Server, path string) (int, error) {
	if err := server.CreateStream("flights", 4); err != nil {
		return 0, err
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	n := 0
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var flight struct{ Origin string }
		if err := json.Unmarshal(lines.Bytes(), &flight); err != nil {
			return n, fmt.Errorf("line %d: %w", n+1, err)
		}
		if _, _, err := server.Put("flights", flight.Origin, lines.Bytes()); err != nil {
			return n, err
		}
		n++
	}
	return n, lines.Err()
}
