package aws

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// lateCopy does what net/http may: it asks the body for more after the SDK, which has its reply, has
// closed it.
type lateCopy struct{ err error }

func (c *lateCopy) Do(r *http.Request) (*http.Response, error) {
	r.Body.Close()
	_, c.err = io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

func TestSteady(t *testing.T) {
	fails := func(wrap func(aws.HTTPClient) aws.HTTPClient) error {
		late := &lateCopy{}
		in := smithyhttp.NewStackRequest().(*smithyhttp.Request)
		in, err := in.SetStream(strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		built := in.Build(t.Context())
		before := built.Body
		if _, err := wrap(late).Do(built); err != nil {
			t.Fatal(err)
		}
		if built.Body != before {
			t.Fatal("the SDK's request was changed")
		}
		return late.err
	}
	if err := fails(Steady); err != nil {
		t.Fatalf("a closed body fails: %v", err)
	}
	// The negative control: the trap is still there without it.
	if err := fails(func(c aws.HTTPClient) aws.HTTPClient { return c }); !errors.Is(err, io.EOF) {
		t.Fatalf("the SDK's body answers %v: Steady may not be needed any more", err)
	}
}
