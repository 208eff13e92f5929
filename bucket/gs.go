package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
)

// openGS opens a bucket of Google Cloud Storage. A read from a bucket that does not exist is answered
// like one of an object that does not; writing and listing tell them apart.
func openGS(ctx context.Context, name, prefix string, params url.Values) (Bucket, error) {
	endpoint := cmp.Or(params.Get("endpoint"), os.Getenv("STORAGE_EMULATOR_HOST"))
	client := gcp.NewAnonymousHTTPClient(http.DefaultTransport)
	opts := &gcsblob.Options{}
	if endpoint != "" {
		if !strings.Contains(endpoint, "://") {
			endpoint = "http://" + endpoint
		}
		if !strings.Contains(endpoint, "/storage/") {
			endpoint = strings.TrimSuffix(endpoint, "/") + "/storage/v1/"
		}
		opts.ClientOptions = []option.ClientOption{option.WithEndpoint(endpoint), option.WithHTTPClient(&client.Client)}
	} else {
		creds, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("gs://%s: no Google credentials: run under a service account, or `gcloud auth application-default login`: %w", name, err)
		}
		if client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(creds)); err != nil {
			return nil, fmt.Errorf("gs://%s: %w", name, err)
		}
	}
	b, err := gcsblob.OpenBucket(ctx, client, name, opts)
	if err != nil {
		return nil, fmt.Errorf("gs://%s: %w", name, err)
	}
	var sdk *storage.Client
	if b.As(&sdk) {
		sdk.SetRetry(storage.WithMaxAttempts(attempts)) // by default it tries until the context ends
	}
	return &cloud{b, prefix, where("gs", name, prefix), verdict{
		taken:   func(err error) bool { return gsStatus(err) == http.StatusPreconditionFailed },
		missing: func(err error) bool { return errors.Is(err, storage.ErrObjectNotExist) },
		explain: explainGS,
	}, b.Delete, patientGS, nil}, nil
}

// patientGS bounds an upload's retries, for which the client's number of attempts does not count:
// without this they go on until the context ends.
func patientGS(int) func(func(any) bool) error {
	return func(as func(any) bool) error {
		var object **storage.ObjectHandle
		if !as(&object) {
			return errors.New("the GCS driver has no object handle")
		}
		var failures atomic.Int32
		*object = (*object).Retryer(storage.WithErrorFunc(func(err error) bool {
			return failures.Add(1) < attempts && storage.ShouldRetry(err)
		}))
		return nil
	}
}

func gsStatus(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}

func explainGS(err error) string {
	var api *googleapi.Error
	if !errors.As(err, &api) {
		return ""
	}
	message := api.Message
	if message == "" && len(api.Body) < 500 { // reads are answered in XML
		message = api.Body
	}
	return answer(http.StatusText(api.Code), message, api.Code)
}
