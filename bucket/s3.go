package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob/s3blob"
)

// openS3 opens a bucket of S3 or of a store that speaks its protocol. The identity needs GetObject,
// PutObject, DeleteObject and ListBucket: without the last one S3 answers 403, not 404, for an object
// that is not there.
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
		}
		if o.BaseEndpoint != nil { // AWS_ENDPOINT_URL included
			o.UsePathStyle = true
			// Many compatible stores refuse the checksums that the SDK adds of its own accord.
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	})
	b, err := s3blob.OpenBucket(ctx, client, name, nil)
	if err != nil {
		return nil, fmt.Errorf("s3://%s: %w", name, err)
	}
	return &cloud{b, prefix, where("s3", name, prefix), verdict{
		// 412 is an answer; 409 asks to try again while another conditional write is under way
		// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
		taken:   func(err error) bool { return s3Code(err) == "PreconditionFailed" },
		missing: func(err error) bool { return s3Code(err) == "NoSuchKey" },
		explain: explainS3,
	}, func(ctx context.Context, key string) error { // the library's asks with HEAD first, and fails when there is none
		_, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(name), Key: aws.String(key)})
		return err
	}, wholeS3(client), func(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: aws.String(name), Key: aws.String(key), Body: body, ContentLength: aws.Int64(size),
			ContentType: aws.String("application/octet-stream"), IfNoneMatch: aws.String("*"),
		})
		return err
	}}, nil
}

// wholeS3 makes every object one PutObject, which S3 allows up to 5 GiB: the condition on a multipart
// upload is newer, and some compatible stores ignore it there alone, where Check would not see it.
func wholeS3(client *s3.Client) func(int) func(func(any) bool) error {
	return func(size int) func(func(any) bool) error {
		return func(as func(any) bool) error {
			var manager *transfermanager.Client
			if !as(&manager) {
				return errors.New("the S3 driver has no transfer manager")
			}
			*manager = *transfermanager.New(client, func(o *transfermanager.Options) { o.MultipartUploadThreshold = int64(size) + 1 })
			return nil
		}
	}
}

func s3Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func explainS3(err error) string {
	var api smithy.APIError
	var response *awshttp.ResponseError
	switch {
	case errors.As(err, &api) && errors.As(err, &response):
		return answer(api.ErrorCode(), api.ErrorMessage(), response.HTTPStatusCode())
	case strings.Contains(err.Error(), "failed to refresh cached credentials"):
		return "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or run under a role"
	}
	return ""
}
