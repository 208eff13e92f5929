package bigquery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrNoCredentials and the others, for errors.Is, are reasons of the errors that this package returns.
var (
	ErrNoCredentials = errors.New("no Google Cloud credentials: run gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, or run under a service account")
	ErrDenied        = errors.New("access denied: writing needs the role BigQuery Data Editor on the table")
	// ErrGone means that rows of a saved checkpoint can not be made visible any more.
	ErrGone = errors.New("rows of a saved checkpoint are gone")
)

// reason is an error whose text stands alone; its cause is for errors.Is and errors.As.
type reason struct{ text, cause error }

func (e *reason) Error() string   { return e.text.Error() }
func (e *reason) Unwrap() []error { return []error{e.text, e.cause} }

// explain returns one line for an error: the remedy where there is one, and otherwise the service's own
// words.
func explain(err error) error {
	text := err.Error()
	var rest *googleapi.Error
	switch s, isStatus := status.FromError(err); {
	case strings.Contains(text, "could not find default credentials"), strings.Contains(text, "default credentials were not found"),
		strings.Contains(text, "credentials: cannot fetch token"):
		return &reason{ErrNoCredentials, err}
	case errors.As(err, &rest):
		if rest.Code == http.StatusForbidden || rest.Code == http.StatusUnauthorized {
			return &reason{fmt.Errorf("%w: %s", ErrDenied, oneLine(rest.Message)), err}
		}
		return &reason{errors.New(oneLine(rest.Message)), err}
	case isStatus && s.Code() != codes.OK:
		if s.Code() == codes.PermissionDenied || s.Code() == codes.Unauthenticated {
			return &reason{fmt.Errorf("%w: %s", ErrDenied, oneLine(s.Message())), err}
		}
		return &reason{fmt.Errorf("%s: %s", s.Code(), oneLine(s.Message())), err}
	}
	return &reason{errors.New(oneLine(text)), err}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// missing reports that a table is not there.
func missing(err error) bool {
	var rest *googleapi.Error
	return errors.As(err, &rest) && rest.Code == http.StatusNotFound || status.Code(err) == codes.NotFound
}

// hopeless reports that an error stays until somebody mends something.
func hopeless(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	var rest *googleapi.Error
	return errors.As(err, &rest) && rest.Code >= 400 && rest.Code < 500 && rest.Code != http.StatusTooManyRequests ||
		errors.Is(err, context.Canceled) || errors.Is(err, errClosed) || errors.Is(explain(err), ErrNoCredentials)
}

// storageCode is the service's own code among the details of a status.
func storageCode(s *status.Status) pb.StorageError_StorageErrorCode {
	for _, d := range s.Details() {
		if e, ok := d.(*pb.StorageError); ok {
			return e.Code
		}
	}
	return pb.StorageError_STORAGE_ERROR_CODE_UNSPECIFIED
}
