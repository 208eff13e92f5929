package azuretables

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// mostBody is the most bytes of an answer. An entity has at most 1 MiB of properties, and a row at most 1 MiB
// of JSON, which escapes can make three times as long on its way.
const mostBody = 4 << 20

var errTooLarge = fmt.Errorf("the answer is larger than %d bytes", mostBody)

// connect makes a client with the credentials that Options describes. No error shows any of them.
func connect(o Options, carrier *http.Client) (*aztables.Client, error) {
	options := &aztables.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: carrier,
		Retry:     policy.RetryOptions{MaxRetries: -1}, // package enrich tries again
	}}
	text, whose := o.ConnectionString, "the connection string"
	switch {
	case text != "" && (o.Account != "" || o.Endpoint != "" || o.Key != "" || o.SAS != ""):
		return nil, errors.New("a connection string says account, endpoint and key: leave those out, or it")
	case text == "" && o.Account == "" && o.Endpoint == "" && o.Key == "" && o.SAS == "":
		text, whose = os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), "AZURE_STORAGE_CONNECTION_STRING"
	}
	if text != "" {
		service, err := aztables.NewServiceClientFromConnectionString(text, options)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read: it needs AccountName, and AccountKey or SharedAccessSignature", whose)
		}
		return service.NewClient(o.Table), nil
	}
	account := cmp.Or(o.Account, os.Getenv("AZURE_STORAGE_ACCOUNT"))
	if account == "" {
		return nil, errors.New("the storage account is missing: add account=, or set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING")
	}
	endpoint := cmp.Or(o.Endpoint, "https://"+account+".table.core.windows.net")
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" {
		return nil, errors.New("the endpoint is not an address such as https://ACCOUNT.table.core.windows.net")
	}
	key, sas := o.Key, o.SAS
	if key == "" && sas == "" {
		key, sas = os.Getenv("AZURE_STORAGE_KEY"), os.Getenv("AZURE_STORAGE_SAS_TOKEN")
	}
	service, err := authorized(endpoint, account, key, sas, options)
	if err != nil {
		return nil, err
	}
	return service.NewClient(o.Table), nil
}

// authorized makes a client with a key, a signature or the identity.
func authorized(endpoint, account, key, sas string, options *aztables.ClientOptions) (*aztables.ServiceClient, error) {
	if key != "" {
		shared, err := aztables.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, errors.New("the key is not a storage account's key")
		}
		return aztables.NewServiceClientWithSharedKey(endpoint, shared, options)
	}
	if sas != "" {
		return aztables.NewServiceClientWithNoCredential(strings.TrimSuffix(endpoint, "/")+"/?"+strings.TrimPrefix(sas, "?"), options)
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, fmt.Errorf("no Azure identity: %w", err)
	}
	return aztables.NewServiceClient(endpoint, identity, options)
}

// newHTTP makes the client that carries requests and bounds answers.
func newHTTP(transport http.RoundTripper) *http.Client {
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*mostConcurrency, mostConcurrency
		transport = t
	}
	return &http.Client{Transport: bounded{transport}}
}

type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = &boundedBody{answer.Body, mostBody}
	}
	return answer, err
}

// CloseIdleConnections is what http.Client looks for.
func (b bounded) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// boundedBody fails when it is longer than left.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
