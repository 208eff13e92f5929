//go:build integration

package kinesis_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// peers are independent servers, what they lack, and where they are known to be
// wrong. How their transcripts differ from the fake's is kept line by line in
// testdata/NAME.txt, so that any other difference fails.
var peers = []struct {
	name, variable string
	lacks          map[string]string // sections that cannot run, with the reason
}{
	// Wrong where it differs: ChildShards is never sent; ListShards ignores
	// filters and page sizes; a hash key that is no number is taken, and -1
	// answers by range, not form (the service validates the pattern first).
	{"kinesalite", "MILLSTREAM_TEST_KINESALITE", map[string]string{
		"resharding by count": "UpdateShardCount is unknown",
		"consumers":           "RegisterStreamConsumer is unknown",
		"refusals by arn":     "StreamARN is ignored",
	}},
	// Wrong where it differs: for an even number of shards the ranges are one too
	// short; ending sequence numbers lie before the last record; AT_TRIM_HORIZON
	// lists shards that were not there yet; hardly anything is validated, and what is has
	// another error type.
	{"kinesis-local", "MILLSTREAM_TEST_KINESIS_LOCAL", nil},
}

// TestPeers runs the script against each peer whose endpoint is given and
// compares the transcripts. It was written against kinesalite 3.3.3 and
// kinesis-local 0.6.2, both on npm, started with
//
//	kinesalite --port 4577 --shardLimit 500 --createStreamMs 50 --updateStreamMs 50 --deleteStreamMs 50
//	SHARD_LIMIT=500 CREATE_STREAM_DURATION=50ms KINESIS_MOCK_PLAIN_PORT=4568 KINESIS_MOCK_CERT_PATH=server.json node main.js
//
// and run by
//
//	MILLSTREAM_TEST_KINESALITE=http://127.0.0.1:4577 MILLSTREAM_TEST_KINESIS_LOCAL=http://127.0.0.1:4568 \
//		go test -tags integration -run Peers ./fakes/kinesis
func TestPeers(t *testing.T) {
	tested := 0
	for _, peer := range peers {
		endpoint := os.Getenv(peer.variable)
		if endpoint == "" {
			continue
		}
		tested++
		t.Run(peer.name, func(t *testing.T) {
			client := newClient(endpoint)
			prefix := fmt.Sprintf("p%d-", time.Now().UnixNano())
			var b strings.Builder
			for _, s := range sections {
				if peer.lacks[s.name] != "" {
					continue
				}
				want, got := record(t, client, prefix, s), recordFake(t, prefix, s)
				if want != got {
					fmt.Fprintf(&b, "== %s\n%s\n", s.name, difference(want, got))
				}
			}
			golden := "testdata/" + peer.name + ".txt"
			if *update {
				must(t, os.WriteFile(golden, []byte(b.String()), 0o644))
			}
			known, err := os.ReadFile(golden)
			must(t, err)
			if b.String() != string(known) {
				t.Errorf("lines of the peer (-) and of the fake (+):\n%s\nknown are:\n%s", &b, known)
			}
		})
	}
	if tested == 0 {
		t.Fatal("set MILLSTREAM_TEST_KINESALITE or MILLSTREAM_TEST_KINESIS_LOCAL to an endpoint")
	}
}
