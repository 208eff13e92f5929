package aws

import (
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Steady returns a client for which a quick reply does not break the connection. Load's
// configurations have it already.
//
// The SDK closes a request's body as soon as the response's header is there, and a closed body of its
// kind answers WriteTo with io.EOF as a failure, while net/http may still be asking the body for more
// than its announced length. net/http then closes the connection under the reply. Against a server on
// the same machine that hits one large GetRecords in 25, and turns a PutRecords that was done into one
// whose outcome nobody knows. Read, to which hiding WriteTo leaves net/http, ends quietly.
func Steady(client aws.HTTPClient) aws.HTTPClient { return steady{client} }

type steady struct{ client aws.HTTPClient }

func (s steady) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context()) // a shallow copy: the request is the SDK's
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return s.client.Do(r)
}
