package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/azureblob"
)

// openAzure opens a container of Azure Blob Storage: by AZURE_STORAGE_CONNECTION_STRING when that is
// set, by the environment's identity (azidentity) otherwise.
func openAzure(ctx context.Context, name, prefix string, params url.Values) (Bucket, error) {
	client, err := azureClient(name, params)
	if err != nil {
		return nil, fmt.Errorf("azblob://%s: %w", name, err)
	}
	b, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, fmt.Errorf("azblob://%s: %w", name, err)
	}
	return &cloud{b: b, prefix: prefix, url: where("azblob", name, prefix), conflict: azureConflict}, nil
}

func azureClient(name string, params url.Values) (*container.Client, error) {
	if text := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); text != "" {
		return container.NewClientFromConnectionString(text, name, nil)
	}
	account := params.Get("account")
	if account == "" {
		account = os.Getenv("AZURE_STORAGE_ACCOUNT")
	}
	endpoint := params.Get("endpoint")
	switch {
	case account == "" && endpoint == "":
		return nil, errors.New("the storage account is missing: add ?account=, or set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING")
	case endpoint == "":
		endpoint = "https://" + account + ".blob.core.windows.net"
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return container.NewClient(strings.TrimSuffix(endpoint, "/")+"/"+name, identity, nil)
}

// azureConflict: 409 BlobAlreadyExists on If-None-Match is an answer, and so is a failed condition.
func azureConflict(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet) || failedPrecondition(err)
}
