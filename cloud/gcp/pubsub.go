// Package gcp makes clients of Google Cloud Pub/Sub, reads secrets of Secret Manager, and turns the
// services' errors into one line that says what to do.
//
// A program calls [PubSub] once for each project it uses and closes the client in the end. Credentials
// are whatever Google's default chain finds: GOOGLE_APPLICATION_CREDENTIALS, the developer's login,
// workload identity, the machine's service account. A server that stands in for the service needs none.
package gcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"

	"cloud.google.com/go/pubsub/v2"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// EmulatorVariable names the environment variable that holds the address of a stand-in, the one that
// every Google client honours.
const EmulatorVariable = "PUBSUB_EMULATOR_HOST"

// Options says where Pub/Sub is.
type Options struct {
	// Project is the id of the project, such as "orders-prod".
	Project string
	// Endpoint is the address of a server that stands in for the service and speaks without TLS, such
	// as "127.0.0.1:8085", or a regional address of the service's own such as
	// "europe-west1-pubsub.googleapis.com:443". Default: PUBSUB_EMULATOR_HOST, and otherwise the
	// service's global address.
	Endpoint string
}

// googleDomain ends the addresses that are the service's own, which take TLS and credentials.
const googleDomain = ".googleapis.com"

// Address returns where calls go, without a scheme; empty for the service's global address.
func (o Options) Address() string {
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = os.Getenv(EmulatorVariable)
	}
	if _, rest, found := strings.Cut(endpoint, "://"); found {
		endpoint = rest
	}
	return strings.TrimSuffix(endpoint, "/")
}

// Local reports whether a stand-in is used.
func (o Options) Local() bool {
	host, _, err := net.SplitHostPort(o.Address())
	if err != nil {
		host = o.Address()
	}
	return host != "" && !strings.HasSuffix(host, googleDomain)
}

var (
	projectName  = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*$`)
	resourceName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9._~%+-]{2,254}$`)
)

// Topic returns the full name of a project's topic, projects/PROJECT/topics/ID. An id that is a full
// name already is returned as it is.
func Topic(project, id string) (string, error) { return full(project, "topic", id) }

// Subscription returns the full name of a project's subscription, as Topic does.
func Subscription(project, id string) (string, error) { return full(project, "subscription", id) }

func full(project, kind, id string) (string, error) {
	if parts := strings.Split(id, "/"); len(parts) == 4 && parts[0] == "projects" && parts[2] == kind+"s" {
		project, id = parts[1], parts[3]
	}
	if !projectName.MatchString(project) {
		return "", fmt.Errorf("project %q: want an id such as orders-prod", project)
	}
	if !resourceName.MatchString(id) || strings.HasPrefix(id, "goog") {
		return "", fmt.Errorf("%s %q: want a name of 3 to 255 letters, digits and - . _ ~ +, a letter first", kind, id)
	}
	return "projects/" + project + "/" + kind + "s/" + id, nil
}

// PubSub makes a client. It makes no call, but looks for credentials, and fails with one line when
// there are none. more are options of the SDK, such as interceptors.
func PubSub(ctx context.Context, o Options, more ...option.ClientOption) (*pubsub.Client, error) {
	if !projectName.MatchString(o.Project) {
		return nil, fmt.Errorf("project %q: want an id such as orders-prod", o.Project)
	}
	var options []option.ClientOption
	if address := o.Address(); address != "" {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" || strings.ContainsAny(address, " /") {
			return nil, fmt.Errorf("endpoint %q: want an address such as 127.0.0.1:8085", address)
		}
		options = append(options, option.WithEndpoint(address))
	}
	if o.Local() {
		options = append(options, option.WithoutAuthentication(), option.WithTelemetryDisabled(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	client, err := pubsub.NewClient(ctx, o.Project, append(options, more...)...)
	if err != nil {
		if isCredentials(err) {
			return nil, because(ErrNoCredentials, err)
		}
		return nil, fmt.Errorf("Pub/Sub client: %w", err)
	}
	return client, nil
}

// Once switches the SDK's own retries of a call off, which nobody sees and nobody counts.
func Once() gax.CallOption {
	return gax.WithRetry(func() gax.Retryer { return nil })
}

// ErrNoCredentials and the others, for errors.Is, are reasons of [Explain].
var (
	ErrNoCredentials = errors.New("no Google Cloud credentials: run gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, run under a service account, or set " + EmulatorVariable)
	ErrDenied        = errors.New("access denied: reading needs the role Pub/Sub Subscriber, writing Pub/Sub Publisher")
)
