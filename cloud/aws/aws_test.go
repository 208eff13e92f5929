package aws

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/smithy-go"
)

// clean removes everything that the chain could find on the developer's machine.
func clean(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") && name != "AWS_CA_BUNDLE" {
			t.Setenv(name, "")
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name    string
		env     map[string]string
		options Options
		region  string
		key     string
		err     error
		text    string
	}{
		{name: "loopback needs nothing", options: Options{Endpoint: "http://127.0.0.1:4567"}, region: "us-east-1", key: "local"},
		{name: "localhost", options: Options{Endpoint: "http://localhost:4567", Region: "eu-west-1"}, region: "eu-west-1", key: "local"},
		{name: "IPv6", options: Options{Endpoint: "http://[::1]:4567"}, region: "us-east-1", key: "local"},
		{name: "named credentials win on loopback", options: Options{Endpoint: "http://127.0.0.1:1"},
			env: map[string]string{"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "s"}, region: "us-east-1", key: "mine"},
		{name: "environment", env: map[string]string{"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-north-1"},
			region: "eu-north-1", key: "mine"},
		{name: "no region", env: map[string]string{"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "s"}, err: ErrNoRegion},
		{name: "no credentials", options: Options{Region: "us-east-1"}, err: ErrNoCredentials},
		{name: "no credentials elsewhere", options: Options{Region: "us-east-1", Endpoint: "http://192.0.2.1:1"}, err: ErrNoCredentials},
		{name: "bad endpoint", options: Options{Endpoint: "127.0.0.1:4567"}, text: `endpoint "127.0.0.1:4567": want a URL`},
		{name: "bad profile", env: map[string]string{"AWS_PROFILE": "absent"}, options: Options{Region: "us-east-1"}, text: "absent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean(t)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			got, err := Load(context.Background(), c.options)
			if c.err != nil || c.text != "" {
				if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) {
					t.Fatalf("error %v, want %v %q", err, c.err, c.text)
				}
				if strings.Contains(err.Error(), "\n") {
					t.Fatalf("more than one line: %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			keys, err := got.Credentials.Retrieve(context.Background())
			if err != nil || got.Region != c.region || keys.AccessKeyID != c.key {
				t.Fatalf("region %q, key %q, %v", got.Region, keys.AccessKeyID, err)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	api := func(code string) error {
		return fmt.Errorf("operation error Kinesis: ListShards, https response error StatusCode: 400: %w",
			&smithy.GenericAPIError{Code: code, Message: "why"})
	}
	for code, want := range map[string]error{
		"ExpiredTokenException":       ErrExpired,
		"UnrecognizedClientException": ErrRefused,
		"AccessDeniedException":       ErrDenied,
	} {
		err := Explain(api(code))
		var cause smithy.APIError
		if !errors.Is(err, want) || !errors.As(err, &cause) || strings.Contains(err.Error(), "StatusCode") {
			t.Errorf("%s: %v", code, err)
		}
	}
	if Explain(api("InternalFailure")) != nil || Explain(errors.New("lost connection")) != nil {
		t.Error("an error that nobody needs to mend was explained")
	}
}
