package firehose

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"
)

func processing(on bool, processors ...types.Processor) *types.ProcessingConfiguration {
	return &types.ProcessingConfiguration{Enabled: &on, Processors: processors}
}

func splitting(kind, delimiter string) types.Processor {
	p := types.Processor{Type: types.ProcessorTypeRecordDeAggregation, Parameters: []types.ProcessorParameter{
		{ParameterName: types.ProcessorParameterNameSubRecordType, ParameterValue: &kind}}}
	if delimiter != "" {
		p.Parameters = append(p.Parameters, types.ProcessorParameter{ParameterName: types.ProcessorParameterNameDelimiter, ParameterValue: &delimiter})
	}
	return p
}

// Rows are packed where they arrive as rows all the same, and only there, unless it is asked for.
func TestPackedWhereItFits(t *testing.T) {
	arn, partitioning := aws.String("arn:aws:s3:::b"), &types.DynamicPartitioningConfiguration{Enabled: aws.Bool(true)}
	lambda := types.Processor{Type: types.ProcessorTypeLambda}
	s3 := func(p *types.ProcessingConfiguration, d *types.DynamicPartitioningConfiguration) awsfirehose.CreateDeliveryStreamInput {
		return awsfirehose.CreateDeliveryStreamInput{ExtendedS3DestinationConfiguration: &types.ExtendedS3DestinationConfiguration{
			BucketARN: arn, RoleARN: arn, ProcessingConfiguration: p, DynamicPartitioningConfiguration: d}}
	}
	plain := types.S3DestinationConfiguration{BucketARN: arn, RoleARN: arn}
	for _, c := range []struct {
		name    string
		in      awsfirehose.CreateDeliveryStreamInput
		pack    int
		records int // that 1200 rows come in
		says    string
	}{
		{"a bucket", s3(nil, nil), 0, 1, ""},
		{"a bucket, off", s3(nil, nil), Off, 1200, ""},
		{"what nobody knows yet", awsfirehose.CreateDeliveryStreamInput{}, 0, 1200, "takes a record for one row"},
		{"line breaks are added", s3(processing(true, types.Processor{Type: types.ProcessorTypeAppendDelimiterToRecord}), nil), 0, 1, ""},
		{"a function", s3(processing(true, lambda), nil), 0, 1200, "a function transforms"},
		{"a function that is off", s3(processing(false, lambda), nil), 0, 1, ""},
		{"a function, asked for", s3(processing(true, lambda), nil), 500 << 10, 1, "where they should not be: a function transforms"},
		{"a function, off", s3(processing(true, lambda), nil), Off, 1200, ""},
		{"partitions", s3(nil, partitioning), 0, 1200, "partitions by"},
		{"partitions of what is taken apart", s3(processing(true, splitting("JSON", "")), partitioning), 0, 3, ""},
		{"partitions of what is taken apart, as asked for", s3(processing(true, splitting("JSON", "")), partitioning), 5 << 10, 21, ""},
		{"partitions of lines", s3(processing(true, splitting("DELIMITED", "Cg==")), partitioning), 0, 3, ""},
		{"partitions between other marks", s3(processing(true, splitting("DELIMITED", "IyMjIw==")), partitioning), 0, 1200, "partitions by"},
		{"functions of what is taken apart", s3(processing(true, splitting("JSON", ""), lambda), partitioning), 0, 3, ""},
		{"Redshift", awsfirehose.CreateDeliveryStreamInput{RedshiftDestinationConfiguration: &types.RedshiftDestinationConfiguration{
			ClusterJDBCURL: arn, CopyCommand: &types.CopyCommand{DataTableName: arn}, RoleARN: arn, S3Configuration: &plain}}, 0, 1, ""},
		{"OpenSearch", awsfirehose.CreateDeliveryStreamInput{AmazonopensearchserviceDestinationConfiguration: &types.AmazonopensearchserviceDestinationConfiguration{
			IndexName: arn, RoleARN: arn, S3Configuration: &plain}}, 0, 1200, "takes a record for one row"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, func(b *bed) {
				c.in.DeliveryStreamName = aws.String("made")
				if _, err := client(b.server.Client()).CreateDeliveryStream(b.Context(), &c.in); err != nil {
					b.Fatal(err)
				}
				var log bytes.Buffer
				s, err := New(b.Context(), Options{Stream: "made", Client: client(b.server.Client()), Pack: c.pack, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Deliver(b.Context(), id, rowsOf(1200, 10)); err != nil {
					b.Fatal(err)
				}
				records := b.server.Records("made")
				if rows := bytes.Count(bytes.Join(records, nil), []byte("\n")); len(records) != c.records || rows != 1200 {
					b.Errorf("%d rows in %d records, want %d", rows, len(records), c.records)
				}
				if (log.Len() > 0) != (c.says != "") || !strings.Contains(log.String(), c.says) {
					b.Errorf("log: %s", &log)
				}
			})
		})
	}
}
