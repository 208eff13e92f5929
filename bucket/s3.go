package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob/s3blob"
)

// openS3 opens a bucket of S3 or of a store that speaks its protocol.
func openS3(ctx context.Context, name, prefix string, params url.Values) (Bucket, error) {
	// Where AWS_CA_BUNDLE is set, only the SDK's buildable client works.
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(awshttp.NewBuildableClient())}
	region, endpoint := params.Get("region"), params.Get("endpoint")
	if region == "" && endpoint != "" && os.Getenv("AWS_REGION") == "" {
		region = "us-east-1"
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("s3://%s: %w", name, err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("s3://%s: the region is missing: add ?region= or set AWS_REGION", name)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
			o.UsePathStyle = true
		}
	})
	b, err := s3blob.OpenBucket(ctx, client, name, nil)
	if err != nil {
		return nil, fmt.Errorf("s3://%s: %w", name, err)
	}
	return &cloud{b: b, prefix: prefix, url: where("s3", name, prefix), conflict: s3Conflict}, nil
}

// s3Conflict tells 412, an answer, from 409, which asks to try again while another conditional write
// to the same name is under way.
func s3Conflict(err error) bool {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode() == http.StatusPreconditionFailed
	}
	return failedPrecondition(err)
}
