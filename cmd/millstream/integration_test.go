//go:build integration

package main

import (
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millstream/millstream/bucket"
	cloud "github.com/millstream/millstream/cloud/aws"
)

// place is a bucket at an independent server, as the processes of a test see it.
type place struct {
	url func(below string) string
	env []string
}

func peer(t *testing.T, variable string) string {
	t.Helper()
	endpoint := os.Getenv(variable)
	if endpoint == "" {
		t.Fatalf("%s is not set", variable)
	}
	return endpoint
}

// versity makes a bucket at the S3 gateway.
func versity(t *testing.T) place {
	endpoint := peer(t, "MILLSTREAM_TEST_S3_ENDPOINT")
	env := []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=testtest", "AWS_REGION=us-east-1"}
	apply(t, env)
	c, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	name := "kills-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	client := s3.NewFromConfig(c, func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return place{func(below string) string { return "s3://" + name + "/" + below + "?endpoint=" + endpoint }, env}
}

// azurite makes a container. Its key is every emulator's.
func azurite(t *testing.T) place {
	connection := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=" +
		peer(t, "MILLSTREAM_TEST_AZURITE") + "/devstoreaccount1"
	env := []string{"AZURE_STORAGE_CONNECTION_STRING=" + connection}
	apply(t, env)
	name := "kills-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	client, err := container.NewClientFromConnectionString(connection, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return place{func(below string) string { return "azblob://" + name + "/" + below }, env}
}

// apply is for the test's own clients; a process gets its environment by itself.
func apply(t *testing.T, env []string) {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
}

// rows reads what a consumer of the sink sees.
func (p place) rows(t *testing.T) string {
	t.Helper()
	b, err := bucket.Open(t.Context(), p.url("out"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	names, err := b.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		if strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		data, err := b.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// killedOver kills workers whose state and rows are at the place, and compares.
func killedOver(t *testing.T, at place) {
	random := rand.New(rand.NewPCG(31, 9))
	dir := t.TempDir()
	want := workFolder(t, random, filepath.Join(dir, "in"), 3, 8000)
	const kills = 5
	k := &killer{T: t, random: random, kills: kills, made: func() int { return strings.Count(at.rows(t), "\n") }, start: func(n int) *process {
		return launch{env: at.env}.start(t, slices.Concat([]string{"run", "--source", source(dir+"/in", n < kills), "--until-end", "--name", "killed",
			"--sink", at.url("out"), "--checkpoint", at.url("state"), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)...)
	}}
	p := k.run()
	if err := want.compare(parse[result](t, at.rows(t))); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}

func TestIntegrationKilledOverS3(t *testing.T)    { killedOver(t, versity(t)) }
func TestIntegrationKilledOverAzure(t *testing.T) { killedOver(t, azurite(t)) }

// A stream at a server that others wrote, split before it is read, its rows and state in a bucket at
// another; killed on the way.
func TestIntegrationKilledOnTheWayFromKinesalite(t *testing.T) {
	at := versity(t)
	endpoint := peer(t, "MILLSTREAM_TEST_KINESALITE")
	c, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	client := awskinesis.NewFromConfig(c)
	name := "kills-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if _, err := client.CreateStream(t.Context(), &awskinesis.CreateStreamInput{StreamName: &name, ShardCount: aws.Int32(2)}); err != nil {
		t.Fatal(err)
	}
	active := func() []types.Shard {
		t.Helper()
		for {
			out, err := client.DescribeStream(t.Context(), &awskinesis.DescribeStreamInput{StreamName: &name})
			if err != nil {
				t.Fatal(err)
			}
			if out.StreamDescription.StreamStatus == types.StreamStatusActive {
				return out.StreamDescription.Shards
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	random := rand.New(rand.NewPCG(32, 10))
	all := workload(random, 8000)
	byShard := map[string][]string{}
	feed := func(lines []string) {
		t.Helper()
		for chunk := range slices.Chunk(lines, 400) {
			in := &awskinesis.PutRecordsInput{StreamName: &name}
			for _, line := range chunk {
				in.Records = append(in.Records, types.PutRecordsRequestEntry{Data: []byte(line), PartitionKey: aws.String(strconv.FormatUint(random.Uint64(), 36))})
			}
			out, err := client.PutRecords(t.Context(), in)
			if err != nil || aws.ToInt32(out.FailedRecordCount) > 0 {
				t.Fatal("put: ", err, aws.ToInt32(out.FailedRecordCount))
			}
			for i, r := range out.Records {
				byShard[*r.ShardId] = append(byShard[*r.ShardId], chunk[i])
			}
		}
	}
	first := active()[0]
	feed(all[:4000])
	if _, err := client.SplitShard(t.Context(), &awskinesis.SplitShardInput{StreamName: &name, ShardToSplit: first.ShardId, NewStartingHashKey: aws.String("1" + strings.Repeat("0", 36))}); err != nil {
		t.Fatal(err)
	}
	shards := active()
	stamped := time.Now().Add(2 * time.Second)
	feed(all[4000:])
	// This server dates a new shard, and the records in it, up to a second ahead of its clock; what is
	// dated later than the first process's start is not what --until-end reads.
	<-time.After(time.Until(stamped))
	args := slices.Concat([]string{"run", "--source", "kinesis://" + name + "?region=us-east-1&endpoint=" + endpoint, "--until-end", "--name", "killed",
		"--sink", at.url("out"), "--checkpoint", at.url("state"), "--checkpoint-every", "100ms", "--lease", "1s"}, workQuery)
	for i := range 3 {
		p := launch{env: at.env}.start(t, args...)
		if !p.tries(func() bool {
			return strings.Contains(p.stderr.String(), `"partition":"shardId`) || strings.Contains(p.stderr.String(), "partition=shardId")
		}) {
			t.Fatalf("ended early\n%s", p.stderr.String())
		}
		<-time.After(time.Duration(i*60) * time.Millisecond)
		p.kill()
	}
	p := launch{env: at.env}.start(t, args...).succeeds()
	want, last := newOracle(), map[string]int64{}
	for _, s := range shards { // parents come first
		last[*s.ShardId] = want.partition(byShard[*s.ShardId], max(last[aws.ToString(s.ParentShardId)], last[aws.ToString(s.AdjacentParentShardId)]))
	}
	if err := want.compare(parse[result](t, at.rows(t))); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
	t.Log(len(shards), "shards")
}
