package service_test

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// A stream of another account, by its ARN, read by a consumer that somebody registered.
func TestKinesisConsumer(t *testing.T) {
	const arn = "arn:aws:kinesis:eu-west-1:210987654321:stream/orders"
	server := fake.New(fake.Options{Region: "eu-west-1", AccountID: "210987654321"})
	defer server.Close()
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.CreateStream("orders", 2); err != nil {
		t.Fatal(err)
	}
	source := "kinesis://" + arn + "?consumer=fan&start=2026-01-02T03:04:05Z&endpoint=" + url.QueryEscape(endpoint)
	refused := func(source, want string) {
		t.Helper()
		err := service.Check(t.Context(), &settings(t, "--source", source).Settings, stream.Plan{}, nil, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", source, err)
		}
	}
	refused(source, "--source: kinesis: stream orders: no such consumer: fan: register it (aws kinesis register-stream-consumer --stream-arn "+arn+" --consumer-name fan), or leave consumer out to poll")
	refused("kinesis://orders?consumer=", "names no consumer")
	refused("kinesis://orders?consumers=fan", "did you mean consumer?")
	refused("kinesis://orders?client=java", "client=java: it is own (the default) or sdk")
	refused("kinesis://"+arn+"?region=eu-west-2", "stream orders is in eu-west-1, as its ARN says, and not in eu-west-2")

	config, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := awskinesis.NewFromConfig(config).RegisterStreamConsumer(t.Context(), &awskinesis.RegisterStreamConsumerInput{StreamARN: aws.String(arn), ConsumerName: aws.String("fan")}); err != nil {
		t.Fatal(err)
	}
	source += "&client=sdk"
	var said bytes.Buffer
	if err := service.Check(t.Context(), &settings(t, "--source", source).Settings, stream.Plan{}, nil, &said); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"kinesis://eu-west-1/orders: readable, 2 partitions",
		"kinesis:ListShards, kinesis:DescribeStreamSummary on stream " + arn,
		"kinesis:DescribeStreamConsumer, kinesis:SubscribeToShard on consumer fan of stream " + arn,
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is missing:\n%s", want, said.String())
		}
	}
}
