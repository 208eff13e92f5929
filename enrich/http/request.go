package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	nethttp "net/http"
	"net/url"
	"strings"
	"time"
)

var errTooLarge = errors.New("the answer is too large")

// request sends one request and returns the body of an answer with status 200, up to most bytes of it; a
// larger one is errTooLarge. Other statuses are a *StatusError. Errors say nothing of the URL.
func (t *Table) request(ctx context.Context, method, target string, body []byte, most int) ([]byte, error) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerWait)
		defer cancel()
	}
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	request, err := nethttp.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, errors.New("the key makes no URL")
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "millstream")
	for name, values := range t.header {
		request.Header[name] = values
	}
	response, err := t.client.Do(request)
	if err != nil {
		return nil, plain(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode != nethttp.StatusOK {
		// What is left unread would cost the connection.
		_, _ = io.CopyN(io.Discard, response.Body, maxHeader)
		return nil, &StatusError{Status: response.StatusCode, After: retryAfter(response.Header, time.Now())}
	}
	if kind := response.Header.Get("Content-Type"); !mayBeJSON(kind) {
		return nil, fmt.Errorf("an answer of type %.64q, not JSON", kind)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, int64(most)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer is cut off: %w", plain(ctx, err))
	case len(answer) > most:
		return nil, errTooLarge
	case unmarked(response) && !json.Valid(answer):
		return nil, errors.New("the answer is not JSON, or cut off: nothing marks its end")
	}
	return answer, nil
}

// plain is err without the URL, which package net/http puts around it.
func plain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var redirect *redirectError
	if errors.As(err, &redirect) {
		return redirect
	}
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// mayBeJSON reports whether an answer of this type can be JSON. Plain text is what servers say that say
// nothing; a page for people is none.
func mayBeJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasSuffix(kind, "/json") || strings.HasSuffix(kind, "+json") || kind == "text/plain")
}

// unmarked reports whether a body ends where the connection does, so that one cut off looks whole.
func unmarked(r *nethttp.Response) bool {
	return r.ProtoMajor == 1 && r.ContentLength < 0 && len(r.TransferEncoding) == 0 && !r.Uncompressed
}
