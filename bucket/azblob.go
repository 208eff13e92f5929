package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/azureblob"
)

// openAzure opens a container of Azure Blob Storage. Of AZURE_STORAGE_CONNECTION_STRING,
// AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN and the environment's identity (azidentity) it uses the
// first that is there.
func openAzure(ctx context.Context, name, prefix string, params url.Values) (Bucket, error) {
	client, err := azureClient(name, params)
	if err != nil {
		return nil, fmt.Errorf("azblob://%s: %w", name, err)
	}
	b, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, fmt.Errorf("azblob://%s: %w", name, err)
	}
	return &cloud{b, prefix, where("azblob", name, prefix), verdict{
		// 409 BlobAlreadyExists is the answer to If-None-Match: *, and a failed condition is one too.
		taken: func(err error) bool {
			return bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet)
		},
		missing: func(err error) bool { return bloberror.HasCode(err, bloberror.BlobNotFound) },
		explain: explainAzure,
	}, b.Delete, nil, nil}, nil
}

func azureClient(name string, params url.Values) (*container.Client, error) {
	options := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry: policy.RetryOptions{MaxRetries: attempts - 1, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 2 * time.Second},
	}}
	account, endpoint := params.Get("account"), params.Get("endpoint")
	if text := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); text != "" {
		if account != "" || endpoint != "" {
			return nil, errors.New("AZURE_STORAGE_CONNECTION_STRING is set and names the account: remove account and endpoint, or unset it")
		}
		client, err := container.NewClientFromConnectionString(text, name, options)
		if err != nil {
			return nil, errors.New("AZURE_STORAGE_CONNECTION_STRING cannot be read: it needs AccountName, AccountKey or SharedAccessSignature, and an endpoint")
		}
		return client, nil
	}
	account = cmp.Or(account, os.Getenv("AZURE_STORAGE_ACCOUNT"))
	if account == "" {
		return nil, errors.New("the storage account is missing: add ?account=, or set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING")
	}
	endpoint = cmp.Or(endpoint, "https://"+account+".blob.core.windows.net")
	at := strings.TrimSuffix(endpoint, "/") + "/" + name
	if key := os.Getenv("AZURE_STORAGE_KEY"); key != "" {
		shared, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, errors.New("AZURE_STORAGE_KEY is not a storage account's key")
		}
		return container.NewClientWithSharedKeyCredential(at, shared, options)
	}
	if token := os.Getenv("AZURE_STORAGE_SAS_TOKEN"); token != "" {
		return container.NewClientWithNoCredential(at+"?"+strings.TrimPrefix(token, "?"), options)
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return container.NewClient(at, identity, options)
}

func explainAzure(err error) string {
	var response *azcore.ResponseError
	switch {
	case errors.As(err, &response):
		return answer(response.ErrorCode, "", response.StatusCode)
	case strings.Contains(err.Error(), "DefaultAzureCredential: "):
		return "no Azure credentials: set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or run under an identity"
	}
	return ""
}
