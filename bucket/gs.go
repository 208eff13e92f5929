package bucket

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/option"
)

// openGS opens a bucket of Google Cloud Storage.
func openGS(ctx context.Context, name, prefix string, params url.Values) (Bucket, error) {
	endpoint := params.Get("endpoint")
	if host := os.Getenv("STORAGE_EMULATOR_HOST"); endpoint == "" && host != "" {
		if endpoint = host; !strings.Contains(host, "://") {
			endpoint = "http://" + host
		}
	}
	client := gcp.NewAnonymousHTTPClient(http.DefaultTransport)
	opts := &gcsblob.Options{}
	if endpoint != "" {
		if !strings.Contains(endpoint, "/storage/") {
			endpoint = strings.TrimSuffix(endpoint, "/") + "/storage/v1/"
		}
		opts.ClientOptions = []option.ClientOption{option.WithEndpoint(endpoint), option.WithHTTPClient(&client.Client)}
	} else {
		creds, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("gs://%s: no credentials: run under a service account, or `gcloud auth application-default login`: %w", name, err)
		}
		if client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(creds)); err != nil {
			return nil, fmt.Errorf("gs://%s: %w", name, err)
		}
	}
	b, err := gcsblob.OpenBucket(ctx, client, name, opts)
	if err != nil {
		return nil, fmt.Errorf("gs://%s: %w", name, err)
	}
	return &cloud{b: b, prefix: prefix, url: where("gs", name, prefix), conflict: failedPrecondition}, nil
}
