package azure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

var (
	vaultName     = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)
	secretName    = regexp.MustCompile(`^[a-zA-Z0-9-]{1,127}$`)
	secretVersion = regexp.MustCompile(`^[a-zA-Z0-9]{0,64}$`)
)

// VaultDomain is where vaults of the public cloud are.
const VaultDomain = ".vault.azure.net"

// Secret reads a version of a secret of Key Vault; an empty version means the newest. A vault without a
// dot in its name is in the public cloud. endpoint is the URL of a server on this machine that stands in
// for the vault, such as "http://127.0.0.1:4997", to which no credentials are sent; empty means the
// vault's own. Reading takes the role Key Vault Secrets User.
func Secret(ctx context.Context, endpoint, vault, name, version string) (string, error) {
	switch {
	case !vaultName.MatchString(vault) || strings.Contains(vault, ".."):
		return "", fmt.Errorf("vault %q: want a name such as orders-prod, or orders-prod%s", vault, VaultDomain)
	case !secretName.MatchString(name):
		return "", fmt.Errorf("secret %q: want a name of at most 127 letters, digits and -", name)
	case !secretVersion.MatchString(version):
		return "", fmt.Errorf("version %q: want the id of a version, or none for the newest", version)
	}
	var identity azcore.TokenCredential
	if endpoint != "" {
		if !isLoopback(endpoint) {
			return "", fmt.Errorf("endpoint %q: want a URL on this machine, such as http://127.0.0.1:4997", endpoint)
		}
	} else {
		if !strings.Contains(vault, ".") {
			vault += VaultDomain
		}
		endpoint = "https://" + vault
		chain, err := azidentity.NewDefaultAzureCredential(nil)
		if err != nil {
			return "", because(errNoSecretCredentials, err)
		}
		identity = chain
	}
	client, err := azsecrets.NewClient(endpoint, identity, &azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry: policy.RetryOptions{MaxRetries: 2, RetryDelay: 200 * time.Millisecond}}})
	if err != nil {
		return "", fmt.Errorf("Key Vault client: %w", err)
	}
	out, err := client.GetSecret(ctx, name, version, nil)
	if err != nil {
		return "", explainSecret(err)
	}
	if out.Value == nil {
		return "", errors.New("the vault's answer holds no value")
	}
	return *out.Value, nil
}

func isLoopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

var errNoSecretCredentials = errors.New("no Azure credentials: run az login, set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or run under a managed identity")

// explainSecret returns one line for an error, which wraps it.
func explainSecret(err error) error {
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) {
		if isCredentials(err) {
			return because(errNoSecretCredentials, err)
		}
		return Explain(err)
	}
	switch status := answer.StatusCode; {
	case status == http.StatusNotFound:
		return because(errors.New("the vault has no such secret, or no such version of it"), err)
	case status == http.StatusUnauthorized:
		return because(errors.New("credentials refused"), err)
	case status == http.StatusForbidden:
		return because(fmt.Errorf("access denied: %s", answer.ErrorCode), err)
	case status == http.StatusTooManyRequests || status >= 500:
		return passing{because(fmt.Errorf("%d %s", status, answer.ErrorCode), err)}
	}
	return because(fmt.Errorf("%d %s", answer.StatusCode, answer.ErrorCode), err)
}

// passing marks what may work later.
type passing struct{ error }

func (p passing) Temporary() bool { return true }
func (p passing) Unwrap() error   { return p.error }
