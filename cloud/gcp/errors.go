package gcp

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Failure says what to do about an error of Pub/Sub.
type Failure uint8

const (
	Transient Failure = iota // passes by itself; what was asked may or may not have been done
	Throttled                // refused because of a quota, and not done
	Missing                  // there is no such topic or subscription
	Denied                   // the credentials are missing, refused or not enough
	Invalid                  // the request does not fit: a message too large, one that a schema refuses
	Refused                  // the resource's state forbids it; somebody must change that
)

// Classify sorts an error of the client, by the codes of
// https://cloud.google.com/pubsub/docs/reference/error-codes. What is not known is Transient: lost
// connections, time-outs, a server that is shutting down.
func Classify(err error) Failure {
	if isCredentials(err) {
		return Denied
	}
	s, ok := status.FromError(err)
	if !ok {
		return Transient
	}
	switch s.Code() {
	case codes.ResourceExhausted:
		return Throttled
	case codes.NotFound:
		return Missing
	case codes.PermissionDenied, codes.Unauthenticated:
		return Denied
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.FailedPrecondition, codes.Unimplemented, codes.AlreadyExists:
		return Refused
	}
	return Transient
}

// isCredentials recognises the texts of the authentication library, which has no types for them.
func isCredentials(err error) bool {
	text := err.Error()
	return strings.Contains(text, "could not find default credentials") ||
		strings.Contains(text, "default credentials were not found") ||
		strings.Contains(text, "credentials: cannot fetch token")
}

// Explain returns one line for an error: the remedy where there is one, and otherwise the service's
// own words. The line wraps err.
func Explain(err error) error {
	if isCredentials(err) {
		return because(ErrNoCredentials, err)
	}
	s, ok := status.FromError(err)
	if !ok {
		return because(errors.New(oneLine(err.Error())), err)
	}
	if Classify(err) == Denied {
		return because(fmt.Errorf("%w: %s", ErrDenied, oneLine(s.Message())), err)
	}
	return because(fmt.Errorf("%s: %s", s.Code(), oneLine(s.Message())), err)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// explained reads as its reason alone.
type explained struct{ reason, cause error }

func because(reason, cause error) error { return &explained{reason, cause} }

func (e *explained) Error() string   { return e.reason.Error() }
func (e *explained) Unwrap() []error { return []error{e.reason, e.cause} }
