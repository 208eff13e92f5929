package kinesis

import (
	"fmt"
	"net/http"
	"strings"
)

// Error codes for [Fault.Code]; any other string is sent as it is. A code ending
// in Failure or Error and ServiceUnavailable travel as HTTP 500 and 503, the
// others as 400, as the service does.
const (
	ProvisionedThroughputExceeded = "ProvisionedThroughputExceededException"
	LimitExceeded                 = "LimitExceededException"
	ExpiredIterator               = "ExpiredIteratorException"
	ExpiredToken                  = "ExpiredTokenException" // credentials, not a pagination token
	ResourceNotFound              = "ResourceNotFoundException"
	InternalFailure               = "InternalFailure"
	ServiceUnavailable            = "ServiceUnavailable"
)

const (
	codeLimitExceeded    = LimitExceeded
	codeInUse            = "ResourceInUseException"
	codeInvalidArgument  = "InvalidArgumentException"
	codeValidation       = "ValidationException"
	codeSerialization    = "SerializationException"
	codeUnknownOperation = "UnknownOperationException"
	codeExpiredNextToken = "ExpiredNextTokenException"
)

// serviceError is an error of the protocol: a type and a message. Direct calls
// on the Server return it too.
type serviceError struct {
	code, message string
	status        int
}

func (e *serviceError) Error() string { return "fake kinesis: " + e.code + ": " + e.message }

// ErrorCode returns the protocol's type name, as the SDK's API errors do.
func (e *serviceError) ErrorCode() string { return e.code }

func failure(code, format string, args ...any) *serviceError {
	return &serviceError{code: code, message: fmt.Sprintf(format, args...), status: statusOf(code)}
}

func notFound(format string, args ...any) *serviceError {
	return failure(ResourceNotFound, format, args...)
}

func invalid(format string, args ...any) *serviceError {
	return failure(codeInvalidArgument, format, args...)
}

func statusOf(code string) int {
	switch {
	case code == ServiceUnavailable:
		return http.StatusServiceUnavailable
	case strings.HasSuffix(code, "Failure"), strings.HasSuffix(code, "Error"):
		return http.StatusInternalServerError
	default:
		return http.StatusBadRequest
	}
}

// violations collects what is wrong with a request, in the service's words.
type violations []string

func (v *violations) add(value any, field, format string, args ...any) {
	if len(*v) == 10 { // as many as the service names
		return
	}
	text := "null"
	if value != nil {
		text = fmt.Sprintf("'%v'", value)
	}
	*v = append(*v, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: Member must ", text, field)+fmt.Sprintf(format, args...))
}

func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	plural := ""
	if len(v) > 1 {
		plural = "s"
	}
	return failure(codeValidation, "%d validation error%s detected: %s", len(v), plural, strings.Join(v, "; "))
}

// name checks a stream, shard or consumer name.
func (v *violations) name(value *string, field string, required bool) {
	if value == nil {
		if required {
			v.add(nil, field, "not be null")
		}
		return
	}
	v.length(*value, field, 1, 128)
	if !isName(*value) {
		v.add(*value, field, "satisfy regular expression pattern: [a-zA-Z0-9_.-]+")
	}
}

func (v *violations) length(value, field string, lo, hi int) {
	n := 0
	for range value {
		n++
	}
	if n < lo {
		v.add(value, field, "have length greater than or equal to %d", lo)
	}
	if n > hi {
		v.add(value, field, "have length less than or equal to %d", hi)
	}
}

// between checks an optional number.
func (v *violations) between(value *int64, field string, lo, hi int64) {
	if value == nil {
		return
	}
	if *value < lo {
		v.add(*value, field, "have value greater than or equal to %d", lo)
	}
	if *value > hi {
		v.add(*value, field, "have value less than or equal to %d", hi)
	}
}

// digits checks a decimal number without leading zeros of at most n digits.
func (v *violations) digits(value *string, field string, n int) {
	if value == nil || *value == "0" {
		return
	}
	s := *value
	if len(s) == 0 || len(s) > n || s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		v.add(s, field, "satisfy regular expression pattern: 0|([1-9]\\d{0,%d})", n-1)
	}
}

func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return s != ""
}
