package firehose_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"
	"github.com/aws/smithy-go"

	"github.com/millstream/millstream/fakes/firehose"
)

func serve(t *testing.T, o firehose.Options) (*firehose.Server, *awsfirehose.Client) {
	t.Helper()
	s := firehose.New(o)
	endpoint, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	client := awsfirehose.New(awsfirehose.Options{Region: "us-east-1", BaseEndpoint: &endpoint, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", "")})
	if _, err := client.CreateDeliveryStream(t.Context(), &awsfirehose.CreateDeliveryStreamInput{DeliveryStreamName: aws.String("s")}); err != nil {
		t.Fatal(err)
	}
	return s, client
}

func put(ctx context.Context, client *awsfirehose.Client, stream string, records ...[]byte) (*awsfirehose.PutRecordBatchOutput, error) {
	in := &awsfirehose.PutRecordBatchInput{DeliveryStreamName: &stream}
	for _, r := range records {
		in.Records = append(in.Records, types.Record{Data: r})
	}
	return client.PutRecordBatch(ctx, in)
}

func TestLimits(t *testing.T) {
	s, client := serve(t, firehose.Options{})
	many := make([][]byte, firehose.MaxEntries+1)
	for i := range many {
		many[i] = []byte("x")
	}
	large := bytes.Repeat([]byte("x"), firehose.MaxRecord)
	for _, c := range []struct {
		what    string
		stream  string
		records [][]byte
		code    string
	}{
		{"too many", "s", many, "ValidationException"},
		{"as many as may be", "s", many[1:], ""},
		{"a large one", "s", [][]byte{large}, ""},
		{"one that is too large", "s", [][]byte{append(bytes.Clone(large), 'x')}, "ValidationException"},
		{"as much as may be", "s", [][]byte{large, large, large, large}, ""},
		{"too much", "s", [][]byte{large, large, large, large, large}, "InvalidArgumentException"},
		{"nobody", "t", [][]byte{large}, "ResourceNotFoundException"},
	} {
		_, err := put(t.Context(), client, c.stream, c.records...)
		var answer smithy.APIError
		if (err == nil) != (c.code == "") || c.code != "" && (!errors.As(err, &answer) || answer.ErrorCode() != c.code) {
			t.Errorf("%s: %v, want %s", c.what, err, c.code)
		}
	}
	want := firehose.Stats{Calls: 3, Records: 505, Bytes: 500 + 5*firehose.MaxRecord, BilledBytes: 500*firehose.BilledStep + 5*firehose.MaxRecord}
	if got := s.Stats("s"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := client.DescribeDeliveryStream(t.Context(), &awsfirehose.DescribeDeliveryStreamInput{DeliveryStreamName: aws.String("s")}); err != nil {
		t.Error(err)
	}
	var taken *types.ResourceInUseException
	if _, err := client.CreateDeliveryStream(t.Context(), &awsfirehose.CreateDeliveryStreamInput{DeliveryStreamName: aws.String("s")}); !errors.As(err, &taken) {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	s, client := serve(t, firehose.Options{Fault: func(operation string, calls int) firehose.Fault {
		switch fmt.Sprint(operation, calls) {
		case "PutRecordBatch1":
			return firehose.Fault{FailEntries: func(i int) bool { return i == 1 }}
		case "PutRecordBatch2":
			return firehose.Fault{Code: "ServiceUnavailableException"}
		case "PutRecordBatch3":
			return firehose.Fault{LoseReply: true}
		}
		return firehose.Fault{}
	}})
	out, err := put(t.Context(), client, "s", []byte("a"), []byte("b"), []byte("c"))
	if err != nil || *out.FailedPutCount != 1 || aws.ToString(out.RequestResponses[1].ErrorCode) != "ServiceUnavailableException" || out.RequestResponses[2].RecordId == nil {
		t.Errorf("%+v, %v", out, err)
	}
	var busy *types.ServiceUnavailableException
	if _, err := put(t.Context(), client, "s", []byte("d")); !errors.As(err, &busy) {
		t.Error(err)
	}
	if _, err := put(t.Context(), client, "s", []byte("e")); err == nil {
		t.Error("a lost reply came")
	}
	if _, err := client.PutRecord(t.Context(), &awsfirehose.PutRecordInput{DeliveryStreamName: aws.String("s"), Record: &types.Record{Data: []byte("f")}}); err != nil {
		t.Error(err)
	}
	if got := string(bytes.Join(s.Records("s"), nil)); got != "acef" {
		t.Errorf("%q", got)
	}
}

// What is delivered stands in a folder one behind the other, in files of the buffer's size.
func TestDelivery(t *testing.T) {
	folder := t.TempDir()
	s, client := serve(t, firehose.Options{Folder: folder, BufferBytes: 10})
	for _, r := range []string{"one\n", "two\n", "three\n", "four\n"} {
		if _, err := put(t.Context(), client, "s", []byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var files []string
	err := filepath.WalkDir(filepath.Join(folder, "s"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files = append(files, string(data))
		return err
	})
	if want := []string{"one\ntwo\nthree\n", "four\n"}; err != nil || fmt.Sprintf("%q", files) != fmt.Sprintf("%q", want) {
		t.Errorf("%q, %v", files, err)
	}
}
