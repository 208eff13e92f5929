package kinesis

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	cloud "github.com/millstream/millstream/cloud/aws"
)

// failure is what an error of the service means for a reader.
type failure uint8

const (
	permanent failure = iota // somebody must mend it
	transient                // passes by itself
	throttled                // asked too often
	expired                  // the iterator is too old
	invalid                  // an argument does not fit: the iterator or the position is another stream's
	missing                  // no such stream or shard
)

func classify(err error) failure {
	var (
		iteratorExpired *types.ExpiredIteratorException
		notFound        *types.ResourceNotFoundException
		api             smithy.APIError
	)
	switch {
	case errors.As(err, &iteratorExpired):
		return expired
	case errors.As(err, &notFound):
		return missing
	case errors.As(err, &api) && (api.ErrorCode() == "InvalidArgumentException" || api.ErrorCode() == "ValidationException"):
		return invalid
	}
	switch cloud.Classify(err) {
	case cloud.Throttled:
		return throttled
	case cloud.Transient:
		return transient
	}
	return permanent
}
