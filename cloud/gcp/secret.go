package gcp

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"regexp"
	"strings"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// secretID is what Secret Manager takes for the name of a secret and for a version's alias.
var secretID = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,255}$`)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Secret reads a version of a secret of Secret Manager: a number, an alias, or latest, which an empty
// version means. endpoint is the address of a server that stands in for the service and speaks without
// TLS, such as "127.0.0.1:8086", or one of the service's own; empty means its global address. Reading
// takes the role Secret Manager Secret Accessor. The service's checksum of the value is verified.
func Secret(ctx context.Context, endpoint, project, name, version string) (string, error) {
	if version == "" {
		version = "latest"
	}
	switch {
	case !projectName.MatchString(project):
		return "", fmt.Errorf("project %q: want an id such as orders-prod", project)
	case !secretID.MatchString(name):
		return "", fmt.Errorf("secret %q: want a name of at most 255 letters, digits, _ and -", name)
	case !secretID.MatchString(version):
		return "", fmt.Errorf("version %q: want a number, an alias or latest", version)
	}
	var options []option.ClientOption
	if endpoint != "" {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil || host == "" || port == "" || strings.ContainsAny(endpoint, " /@") {
			return "", fmt.Errorf("endpoint %q: want an address such as 127.0.0.1:8086", endpoint)
		}
		options = append(options, option.WithEndpoint(endpoint))
		if !strings.HasSuffix(host, googleDomain) {
			options = append(options, option.WithoutAuthentication(), option.WithTelemetryDisabled(),
				option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
		}
	}
	client, err := secretmanager.NewClient(ctx, options...)
	if err != nil {
		return "", explainSecret(err)
	}
	defer client.Close()
	out, err := client.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{
		Name: "projects/" + project + "/secrets/" + name + "/versions/" + version},
		gax.WithRetry(func() gax.Retryer { return &thrice{} }))
	if err != nil {
		return "", explainSecret(err)
	}
	payload := out.GetPayload()
	if payload == nil {
		return "", errors.New("the service's answer holds no payload")
	}
	if sum := payload.DataCrc32C; sum != nil && *sum != int64(crc32.Checksum(payload.Data, castagnoli)) {
		return "", passing{errors.New("the value was damaged on its way: it does not fit its checksum")}
	}
	return string(payload.Data), nil
}

// thrice tries a call up to three times. The client's own retries go on until there is no time left, and
// what was wrong is lost then.
type thrice struct {
	gax.Backoff
	tried int
}

// Retry implements gax.Retryer.
func (t *thrice) Retry(err error) (time.Duration, bool) {
	t.tried++
	kind := Classify(err)
	t.Initial = 200 * time.Millisecond
	return t.Pause(), t.tried < 3 && (kind == Transient || kind == Throttled)
}

// explainSecret is Explain in the words of Secret Manager.
func explainSecret(err error) error {
	switch kind := Classify(err); {
	case isCredentials(err):
		return because(errNoSecretCredentials, err)
	case kind == Transient, kind == Throttled:
		return passing{Explain(err)}
	case kind == Missing:
		return because(errors.New("there is no such secret, or no such version of it"), err)
	case kind == Denied:
		return because(errors.New("access denied, or there is no such secret"), err)
	}
	return Explain(err)
}

var errNoSecretCredentials = errors.New("no Google Cloud credentials: run gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, or run under a service account")

// passing marks what may work later.
type passing struct{ error }

func (p passing) Temporary() bool { return true }
func (p passing) Unwrap() error   { return p.error }
