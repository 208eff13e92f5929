package azure

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// Failure says what to do about an error of Event Hubs.
type Failure uint8

const (
	Transient Failure = iota // passes by itself; what was asked may or may not have been done
	Throttled                // refused because of its rate, and not done
	Missing                  // there is no such hub, consumer group or partition
	Stolen                   // a reader with another owner level has the partition
	Denied                   // the credentials are missing, refused or not enough
	Invalid                  // an argument does not fit: a position or a partition of another hub
	TooLarge                 // beyond what the link takes
	Full                     // a quota that waiting does not lift: readers, connections
)

// conditions are the error conditions that the service sends, see
// https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-troubleshoot.
var conditions = map[string]Failure{
	"com.microsoft:server-busy":           Throttled,
	"amqp:not-found":                      Missing,
	"com.microsoft:entity-disabled":       Missing,
	"amqp:link:stolen":                    Stolen,
	"amqp:unauthorized-access":            Denied,
	"com.microsoft:auth-failed":           Denied,
	"com.microsoft:argument-error":        Invalid,
	"com.microsoft:argument-out-of-range": Invalid,
	"amqp:invalid-field":                  Invalid,
	"amqp:link:message-size-exceeded":     TooLarge,
	"amqp:resource-limit-exceeded":        Full,
}

// shown finds a condition in an error's text: the SDK's own error type neither unwraps nor tells more
// than three codes.
var shown = regexp.MustCompile(`Condition: ([a-z:.-]+), Description: (.*), Info: `)

// Classify sorts an error of the client. What is not known is Transient: lost connections, time-outs,
// half an answer.
func Classify(err error) Failure {
	if m := shown.FindStringSubmatch(err.Error()); m != nil {
		if kind, known := conditions[m[1]]; known {
			return kind
		}
	}
	var reply interface{ RPCCode() int } // of $cbs and $management
	if errors.As(err, &reply) {
		switch reply.RPCCode() {
		case http.StatusUnauthorized, http.StatusForbidden:
			return Denied
		case http.StatusNotFound, http.StatusGone:
			return Missing
		case http.StatusBadRequest:
			return Invalid
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			return Throttled
		}
	}
	var told *azeventhubs.Error
	if errors.As(err, &told) {
		switch told.Code {
		case azeventhubs.ErrorCodeOwnershipLost:
			return Stolen
		case azeventhubs.ErrorCodeUnauthorizedAccess:
			return Denied
		}
	}
	if isCredentials(err) {
		return Denied
	}
	return Transient
}

// isCredentials recognises the errors of azidentity, which all call themselves not retriable.
func isCredentials(err error) bool {
	var marked interface{ NonRetriable() }
	return errors.As(err, &marked) || strings.Contains(err.Error(), "DefaultAzureCredential: ")
}

// Explain returns one line for an error: the remedy where there is one, and otherwise the service's
// own words without the identifiers around them. The line wraps err.
func Explain(err error) error {
	if isCredentials(err) {
		return because(ErrNoCredentials, err)
	}
	if Classify(err) == Denied {
		return because(ErrDenied, err)
	}
	if m := shown.FindStringSubmatch(err.Error()); m != nil {
		return because(fmt.Errorf("%s: %s", m[1], withoutTracking(m[2])), err)
	}
	var lost *net.OpError
	if errors.As(err, &lost) {
		return because(errors.New(lost.Error()), err)
	}
	return because(errors.New(strings.Join(strings.Fields(err.Error()), " ")), err)
}

// withoutTracking cuts what only the service's own support can use.
func withoutTracking(text string) string {
	for _, mark := range []string{" TrackingId:", " Reference:", " For troubleshooting information"} {
		text, _, _ = strings.Cut(text, mark)
	}
	return strings.Join(strings.Fields(text), " ")
}

// explained reads as its reason alone.
type explained struct{ reason, cause error }

func because(reason, cause error) error { return &explained{reason, cause} }

func (e *explained) Error() string   { return e.reason.Error() }
func (e *explained) Unwrap() []error { return []error{e.reason, e.cause} }
