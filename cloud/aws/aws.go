// Package aws makes client configurations for Amazon Web Services and turns the service's errors
// into one line that says what to do.
//
// A program calls [Load] once for each region and endpoint it uses, and gives the result to the
// service's NewFromConfig. Region, profile, credentials, web identity, container and instance roles
// come from the SDK's default chain; nothing is read in another way. Load also asks the chain for
// credentials at once, so that a missing or expired login is the first line a program prints and not
// a retry loop an hour later.
package aws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"
)

// credentialsWait bounds the first look for credentials. The chain ends at the instance's metadata
// service, which does not answer outside the cloud.
const credentialsWait = 15 * time.Second

// Errors of [Load] and [Explain], for errors.Is.
var (
	ErrNoRegion      = errors.New("no AWS region: set region= in the URL or AWS_REGION")
	ErrNoCredentials = errors.New("no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run under a role")
	ErrExpired       = errors.New("credentials expired: renew them (for example: aws sso login) and start again")
	ErrRefused       = errors.New("credentials refused")
	ErrDenied        = errors.New("access denied")
)

// Options says where a service is. The zero value means whatever the environment says.
type Options struct {
	// Region such as "eu-central-1". Default: AWS_REGION or the profile's; "us-east-1" when
	// Endpoint is on this machine.
	Region string
	// Endpoint is the base URL of a service that stands in for Amazon's, such as
	// "http://127.0.0.1:4567". Default: the SDK's (AWS_ENDPOINT_URL included).
	//
	// A loopback endpoint needs no account: when no environment variable names credentials, fixed
	// dummy ones are used, so that neither a profile's real keys nor the metadata service are ever
	// asked for the sake of a local server.
	Endpoint string
}

// Local reports whether the endpoint is on this machine.
func (o Options) Local() bool {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// Load returns a client configuration. It fails with one line when the region or the credentials are
// missing, expired or cannot be had. Connections are made by the SDK's buildable client, the only one
// for which AWS_CA_BUNDLE works; up to 256 idle ones are kept for each host, one for every partition
// that polls, and one that HTTP/2 shares is given up when it leaves a ping without an answer.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	if o.Endpoint != "" {
		if u, err := url.Parse(o.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return aws.Config{}, fmt.Errorf("endpoint %q: want a URL such as http://127.0.0.1:4567", o.Endpoint)
		}
	}
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns = 1024
			t.MaxIdleConnsPerHost = 256
			// Event streams share a connection (HTTP/2), and begin anew on it: one that has silently died
			// has to be found out.
			t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
		})),
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	if o.Local() && !credentialsNamed() {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider("local", "local", "")))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("AWS configuration: %w", err)
	}
	c.HTTPClient = Steady(c.HTTPClient)
	if o.Endpoint != "" {
		c.BaseEndpoint = aws.String(o.Endpoint)
	}
	if c.Region == "" {
		if !o.Local() {
			return aws.Config{}, ErrNoRegion
		}
		c.Region = "us-east-1"
	}
	bounded, cancel := context.WithTimeout(ctx, credentialsWait)
	defer cancel()
	if _, err := c.Credentials.Retrieve(bounded); err != nil {
		if ctx.Err() != nil {
			return aws.Config{}, ctx.Err()
		}
		if explained := Explain(err); explained != nil {
			return aws.Config{}, explained
		}
		if strings.Contains(err.Error(), "expired") { // single sign-on has several errors for it
			return aws.Config{}, because(ErrExpired, err)
		}
		return aws.Config{}, because(ErrNoCredentials, err)
	}
	return c, nil
}

// credentialsNamed reports whether the environment names credentials of any kind.
func credentialsNamed() bool {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// Explain returns an error in one line for what a person must mend: expired or refused credentials,
// a missing permission. It wraps both the reason (ErrExpired, ErrRefused, ErrDenied) and err. For any
// other error there is nothing to explain, and it returns nil.
func Explain(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return nil
	}
	switch api.ErrorCode() {
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired", "TokenRefreshRequired":
		return because(ErrExpired, err)
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException",
		"SignatureDoesNotMatch", "IncompleteSignature", "MissingAuthenticationTokenException", "MissingAuthenticationToken":
		return because(fmt.Errorf("%w: %s", ErrRefused, api.ErrorMessage()), err)
	case "AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "KMSAccessDeniedException":
		return because(fmt.Errorf("%w: %s", ErrDenied, api.ErrorMessage()), err)
	}
	return nil
}

// explained reads as its reason alone; the SDK's own text runs over several lines of identifiers.
type explained struct{ reason, cause error }

func because(reason, cause error) error { return &explained{reason, cause} }

func (e *explained) Error() string   { return e.reason.Error() }
func (e *explained) Unwrap() []error { return []error{e.reason, e.cause} }
