package kinesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millstream/millstream/cloud/retry"
)

const (
	// CreatingPatience is how long New waits for a consumer that was registered a moment ago, and
	// creatingPoll how often it looks: the service takes 20 calls a second for each stream.
	CreatingPatience = time.Minute
	creatingPoll     = time.Second
)

// ErrNoConsumer is wrapped when the stream has no consumer of the name that Options.Consumer gives.
var ErrNoConsumer = errors.New("no such consumer")

// registered finds the consumer that Options.Consumer names, and returns its ARN. It creates nothing: a
// consumer costs money for every hour and shard, and belongs to whoever registered it.
func (s *Source) registered(ctx context.Context) (string, error) {
	of, err := s.arn(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	for {
		out, err := control(ctx, s, "DescribeStreamConsumer", func(ctx context.Context) (*awskinesis.DescribeStreamConsumerOutput, error) {
			return s.api.DescribeStreamConsumer(ctx, &awskinesis.DescribeStreamConsumerInput{StreamARN: &of, ConsumerName: &s.options.Consumer}, once)
		})
		var missing *types.ResourceNotFoundException
		switch {
		case errors.As(err, &missing):
			return "", s.unregistered(of)
		case err != nil:
			return "", err
		case out.ConsumerDescription == nil:
			return "", fmt.Errorf("kinesis: stream %s: DescribeStreamConsumer: the service described nothing", s.stream.Name)
		}
		switch d := out.ConsumerDescription; {
		case d.ConsumerStatus == types.ConsumerStatusActive:
			return aws.ToString(d.ConsumerARN), nil
		case d.ConsumerStatus == types.ConsumerStatusDeleting:
			return "", s.unregistered(of)
		case time.Since(began) > CreatingPatience:
			return "", fmt.Errorf("kinesis: stream %s: consumer %s has been %s for %s: wait until it is ACTIVE", s.stream.Name, s.options.Consumer, d.ConsumerStatus, CreatingPatience)
		}
		if err := retry.Sleep(ctx, creatingPoll); err != nil {
			return "", fmt.Errorf("kinesis: stream %s: consumer %s is not ACTIVE yet: %w", s.stream.Name, s.options.Consumer, err)
		}
	}
}

// arn returns the stream's ARN, asking the service when the stream was given by name.
func (s *Source) arn(ctx context.Context) (string, error) {
	if s.stream.ARN != nil {
		return *s.stream.ARN, nil
	}
	out, err := control(ctx, s, "DescribeStreamSummary", func(ctx context.Context) (*awskinesis.DescribeStreamSummaryOutput, error) {
		return s.api.DescribeStreamSummary(ctx, &awskinesis.DescribeStreamSummaryInput{StreamName: &s.stream.Name}, once)
	})
	if err != nil {
		return "", err
	}
	if out.StreamDescriptionSummary == nil || aws.ToString(out.StreamDescriptionSummary.StreamARN) == "" {
		return "", fmt.Errorf("kinesis: stream %s: DescribeStreamSummary: the service named no ARN", s.stream.Name)
	}
	return *out.StreamDescriptionSummary.StreamARN, nil
}

func (s *Source) unregistered(of string) error {
	return fmt.Errorf("kinesis: stream %s: %w: %s: register it (aws kinesis register-stream-consumer --stream-arn %s --consumer-name %s), or leave consumer out to poll",
		s.stream.Name, ErrNoConsumer, s.options.Consumer, of, s.options.Consumer)
}
