package aws

import (
	"errors"
	"strings"

	"github.com/aws/smithy-go"
)

// Failure says what to do about an error of a service.
type Failure uint8

const (
	Permanent Failure = iota // somebody must mend something: asking again is of no use
	Transient                // passes by itself; what was asked may or may not have been done
	Throttled                // refused because of its rate, and not done
)

// Classify sorts an error of any service. An error without an answer from the service, a lost
// connection, a time-out, half a reply, is Transient; so are internal errors.
func Classify(err error) Failure {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return Transient
	}
	switch code := api.ErrorCode(); {
	case code == "ProvisionedThroughputExceededException", code == "LimitExceededException", code == "SlowDown",
		code == "RequestLimitExceeded", code == "TooManyRequestsException", strings.Contains(code, "Throttling"):
		return Throttled
	case api.ErrorFault() == smithy.FaultServer, strings.HasPrefix(code, "Internal"), strings.HasPrefix(code, "ServiceUnavailable"),
		code == "ResourceInUseException", // of something that is being made
		code == "RequestTimeout", code == "RequestTimeoutException",
		code == "UnknownError": // the SDK's word for an error status without a readable body
		return Transient
	}
	return Permanent
}
