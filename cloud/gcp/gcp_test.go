package gcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestNames(t *testing.T) {
	for _, c := range []struct{ project, id, want string }{
		{"orders-prod", "clicks", "projects/orders-prod/topics/clicks"},
		{"example.com:legacy", "clicks", "projects/example.com:legacy/topics/clicks"},
		{"123456", "Clicks.v2_x~y+z%", "projects/123456/topics/Clicks.v2_x~y+z%"},
		{"mine", "projects/theirs/topics/clicks", "projects/theirs/topics/clicks"},
		{"mine", "projects/theirs/subscriptions/clicks", ""},
		{"", "clicks", ""},
		{"orders prod", "clicks", ""},
		{"mine", "", ""},
		{"mine", "ab", ""},
		{"mine", "1st", ""},
		{"mine", "google", ""},
		{"mine", "a/b", ""},
		{"mine", strings.Repeat("x", 255), "projects/mine/topics/" + strings.Repeat("x", 255)},
		{"mine", strings.Repeat("x", 256), ""},
	} {
		got, err := Topic(c.project, c.id)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s, %s: %q, %v", c.project, c.id, got, err)
		}
	}
	if got, err := Subscription("mine", "s-1"); got != "projects/mine/subscriptions/s-1" || err != nil {
		t.Error(got, err)
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		endpoint, variable, address string
		local                       bool
	}{
		{"", "", "", false},
		{"", "localhost:8085", "localhost:8085", true},
		{"127.0.0.1:1", "localhost:8085", "127.0.0.1:1", true},
		{"http://127.0.0.1:1/", "", "127.0.0.1:1", true},
		{"europe-west1-pubsub.googleapis.com:443", "", "europe-west1-pubsub.googleapis.com:443", false},
		{"pubsub.internal:443", "", "pubsub.internal:443", true},
	} {
		t.Setenv(EmulatorVariable, c.variable)
		o := Options{Project: "p", Endpoint: c.endpoint}
		if o.Address() != c.address || o.Local() != c.local {
			t.Errorf("%+v: %q, %t", c, o.Address(), o.Local())
		}
	}
}

func TestPubSub(t *testing.T) {
	t.Setenv(EmulatorVariable, "")
	for _, c := range []struct{ project, endpoint, want string }{
		{"p", "127.0.0.1:1", ""},
		{"", "127.0.0.1:1", `project ""`},
		{"P Q", "127.0.0.1:1", `project "P Q"`},
		{"p", "127.0.0.1", `endpoint "127.0.0.1"`},
		{"p", "127.0.0.1:1/path", `endpoint "127.0.0.1:1/path"`},
	} {
		client, err := PubSub(t.Context(), Options{Project: c.project, Endpoint: c.endpoint})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
		if client != nil {
			client.Close()
		}
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", t.TempDir()+"/absent")
	if _, err := PubSub(t.Context(), Options{Project: "p"}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind Failure
		line string
	}{
		{status.Error(codes.Unavailable, "try\nagain"), Transient, "Unavailable: try again"},
		{status.Error(codes.DeadlineExceeded, "slow"), Transient, "DeadlineExceeded: slow"},
		{status.Error(codes.Internal, "x"), Transient, "Internal: x"},
		{io.ErrUnexpectedEOF, Transient, "unexpected EOF"},
		{context.DeadlineExceeded, Transient, "context deadline exceeded"},
		{fmt.Errorf("wrapped: %w", status.Error(codes.ResourceExhausted, "quota")), Throttled, "ResourceExhausted: "},
		{status.Error(codes.NotFound, "no topic"), Missing, "NotFound: no topic"},
		{status.Error(codes.PermissionDenied, "User not authorized"), Denied, ErrDenied.Error() + ": User not authorized"},
		{status.Error(codes.Unauthenticated, "bad token"), Denied, ErrDenied.Error() + ": bad token"},
		{errors.New("google: could not find default credentials. See\nhttps://…"), Denied, ErrNoCredentials.Error()},
		{status.Error(codes.InvalidArgument, "too large"), Invalid, "InvalidArgument: too large"},
		{status.Error(codes.FailedPrecondition, "detached"), Refused, "FailedPrecondition: detached"},
	} {
		if got := Classify(c.err); got != c.kind {
			t.Errorf("%v: %d", c.err, got)
		}
		line := Explain(c.err)
		if !strings.HasPrefix(line.Error(), c.line) || !errors.Is(line, c.err) || strings.Contains(line.Error(), "\n") {
			t.Errorf("%v: %v", c.err, line)
		}
	}
}
