package http

import (
	"fmt"
	nethttp "net/http"
	"strconv"
	"time"
)

// StatusError is an answer with a status that says neither what the row is nor that there is none.
type StatusError struct {
	Status int
	// After is how long the server asks to be left alone, by Retry-After; zero when it does not say.
	After time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("status %d %s", e.Status, nethttp.StatusText(e.Status))
	if e.After > 0 {
		text += fmt.Sprintf(", to be asked again after %v", e.After)
	}
	return text
}

// RetryAfter returns After.
func (e *StatusError) RetryAfter() time.Duration { return e.After }

// Temporary reports whether the same request may be answered later.
func (e *StatusError) Temporary() bool {
	return e.Status == nethttp.StatusTooManyRequests || e.Status == nethttp.StatusRequestTimeout || e.Status >= 500 && e.Status != nethttp.StatusNotImplemented
}

// maxAfter is the longest wait that is taken from a server.
const maxAfter = time.Hour

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, 10.2.3).
func retryAfter(h nethttp.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxAfter)
	}
	if at, err := nethttp.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now).Truncate(time.Second)), maxAfter)
	}
	return 0
}
