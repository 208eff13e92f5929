package kinesis_test

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/millstream/millstream/fakes/kinesis"
)

// A test of a producer: the server refuses one call, the SDK tries again.
func Example() {
	server := kinesis.New(kinesis.Options{})
	defer server.Close()
	endpoint, err := server.Start()
	if err != nil {
		log.Fatal(err)
	}
	if err := server.CreateStream("orders", 2); err != nil {
		log.Fatal(err)
	}
	throttle := server.Inject(kinesis.Fault{Operation: "PutRecord", Code: kinesis.ProvisionedThroughputExceeded})

	client := awskinesis.New(awskinesis.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("any", "any", ""),
	})
	out, err := client.PutRecord(context.Background(), &awskinesis.PutRecordInput{
		StreamName: aws.String("orders"), PartitionKey: aws.String("customer-7"), Data: []byte(`{"total":12}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	records, err := server.Records("orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("throttled:", throttle.Hits())
	fmt.Println("stored:", len(records), string(records[0].Data), records[0].ShardID == *out.ShardId)
	// Output:
	// throttled: 1
	// stored: 1 {"total":12} true
}
