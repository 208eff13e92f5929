// Package azure finds the way to an Event Hubs namespace, reads secrets of Key Vault, and turns the
// services' errors into one line that says what to do.
//
// A program calls [Find] once for each namespace and hub it uses, and asks the result for clients. A
// connection string, or the address of a stand-in, is enough for a local server; otherwise the identity
// is whatever azidentity's default chain finds: environment variables, workload identity, managed
// identity, the developer's login.
package azure

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// ConnectionStringVariable names the environment variable that holds a connection string.
const ConnectionStringVariable = "EVENTHUBS_CONNECTION_STRING"

// Options says where a hub is.
type Options struct {
	// Namespace such as "orders-prod" or "orders-prod.servicebus.windows.net". A name without a dot is
	// in the public cloud.
	Namespace string
	// Hub is the event hub's name.
	Hub string
	// Endpoint is the address of a server that stands in for the service and speaks without TLS, such
	// as "127.0.0.1:5672". It needs no account: tokens are made from a fixed key. Default: the
	// namespace, by the connection string of the environment if there is one.
	Endpoint string
}

// EventHub is the way to one hub.
type EventHub struct {
	Namespace string // fully qualified; as given when a stand-in is used
	Hub       string
	Local     bool // a stand-in, whose rates are not limited

	connection string
	credential azcore.TokenCredential
}

var (
	hubName       = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,254}[a-zA-Z0-9])?$`)
	namespaceName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)
)

// PublicDomain is where namespaces of the public cloud are.
const PublicDomain = ".servicebus.windows.net"

// Find reads the environment and makes no call. The connection string of EVENTHUBS_CONNECTION_STRING
// must be of the same namespace, and of the same hub if it names one; that of an emulator
// (UseDevelopmentEmulator=true) fits any namespace.
func Find(o Options) (*EventHub, error) {
	if !namespaceName.MatchString(o.Namespace) || strings.Contains(o.Namespace, "..") {
		return nil, fmt.Errorf("namespace %q: want a name such as orders-prod, or orders-prod%s", o.Namespace, PublicDomain)
	}
	if !hubName.MatchString(o.Hub) {
		return nil, fmt.Errorf("event hub %q: want a name of at most 256 letters, digits, . _ and -", o.Hub)
	}
	h := &EventHub{Namespace: o.Namespace, Hub: o.Hub}
	if o.Endpoint != "" {
		address, err := localAddress(o.Endpoint)
		if err != nil {
			return nil, err
		}
		h.Local, h.connection = true, "Endpoint=sb://"+address+";SharedAccessKeyName=local;SharedAccessKey=local;UseDevelopmentEmulator=true"
		return h, nil
	}
	if text := os.Getenv(ConnectionStringVariable); text != "" {
		return h, h.connect(text)
	}
	if h.Namespace = strings.ToLower(h.Namespace); !strings.Contains(h.Namespace, ".") {
		h.Namespace += PublicDomain
	}
	var err error
	if h.credential, err = azidentity.NewDefaultAzureCredential(nil); err != nil {
		return nil, because(ErrNoCredentials, err)
	}
	return h, nil
}

// localAddress reads HOST:PORT, with or without a scheme. The port is AMQP's when it is missing.
func localAddress(endpoint string) (string, error) {
	_, rest, found := strings.Cut(endpoint, "://")
	if !found {
		rest = endpoint
	}
	rest = strings.TrimSuffix(rest, "/")
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = rest, "5672"
	}
	if u, err := url.Parse("sb://" + net.JoinHostPort(host, port)); host == "" || err != nil || u.Hostname() != strings.Trim(host, "[]") || u.Path != "" {
		return "", fmt.Errorf("endpoint %q: want an address such as 127.0.0.1:5672", endpoint)
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port), nil
}

// connect takes the environment's connection string. Its text is a secret: no error shows it.
func (h *EventHub) connect(text string) error {
	p, err := azeventhubs.ParseConnectionString(text)
	if err != nil {
		return fmt.Errorf("%s cannot be read: want Endpoint=sb://NAMESPACE%s/;SharedAccessKeyName=…;SharedAccessKey=…", ConnectionStringVariable, PublicDomain)
	}
	if p.EntityPath != nil && !strings.EqualFold(*p.EntityPath, h.Hub) {
		return fmt.Errorf("%s is of event hub %s, and not of %s: unset it, or use that hub's", ConnectionStringVariable, *p.EntityPath, h.Hub)
	}
	if p.Emulator {
		h.Local = true
	} else {
		host := strings.ToLower(p.FullyQualifiedNamespace)
		if name := strings.ToLower(h.Namespace); name != host && name != strings.SplitN(host, ".", 2)[0] {
			return fmt.Errorf("%s is of namespace %s, and not of %s: unset it, or use that namespace's", ConnectionStringVariable, host, h.Namespace)
		}
		h.Namespace = host
	}
	h.connection = withoutEntity(text)
	return nil
}

// withoutEntity drops the hub from a connection string; the clients want it in one place only.
func withoutEntity(text string) string {
	var kept []string
	for _, part := range strings.Split(text, ";") {
		if name, _, _ := strings.Cut(part, "="); part != "" && !strings.EqualFold(name, "EntityPath") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}

// once switches the SDK's own retries off, which nobody sees and nobody counts.
var once = azeventhubs.RetryOptions{MaxRetries: -1}

// application identifies the program to the service.
const application = "millstream"

// Consumer makes a client that reads for a consumer group, over a connection of its own, which is made
// when it is first used. It does not retry. An empty group is $Default.
func (h *EventHub) Consumer(group string) (*azeventhubs.ConsumerClient, error) {
	group = cmp.Or(group, azeventhubs.DefaultConsumerGroup)
	o := &azeventhubs.ConsumerClientOptions{ApplicationID: application, RetryOptions: once}
	if h.connection != "" {
		return azeventhubs.NewConsumerClientFromConnectionString(h.connection, h.Hub, group, o)
	}
	return azeventhubs.NewConsumerClient(h.Namespace, h.Hub, group, h.credential, o)
}

// Producer makes a client that writes, as Consumer does.
func (h *EventHub) Producer() (*azeventhubs.ProducerClient, error) {
	o := &azeventhubs.ProducerClientOptions{ApplicationID: application, RetryOptions: once}
	if h.connection != "" {
		return azeventhubs.NewProducerClientFromConnectionString(h.connection, h.Hub, o)
	}
	return azeventhubs.NewProducerClient(h.Namespace, h.Hub, h.credential, o)
}

// ErrNoCredentials, for errors.Is, and the others are reasons of [Explain].
var (
	ErrNoCredentials = errors.New("no Azure credentials: run az login, set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, run under a managed identity, or set " + ConnectionStringVariable)
	ErrDenied        = errors.New("access denied: reading needs the role Azure Event Hubs Data Receiver, writing Azure Event Hubs Data Sender (with a connection string: the claim Listen or Send)")
)
