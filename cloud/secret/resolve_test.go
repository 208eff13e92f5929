package secret

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// kept is what every fake keeps, by name and version; an empty version is the newest.
var kept = map[string]map[string]string{
	"plain":  {"": hunter, "old-label": "old", "0123456789abcdef0123456789abcdef": "by-id", "7": "seven"},
	"object": {"": `{"user":"orders","password":"` + hunter + `","pin":1234567890123456789,"nested":{"a":1},"none":null,"empty":""}`},
	"line":   {"": hunter + "\r\n"},
	"empty":  {"": "\n"},
	"large":  {"": strings.Repeat("x", MaxSize+1)},
	"broken": {"": `{"password":"` + hunter},
}

func lookup(name, version string) (string, bool) {
	value, found := kept[name][version]
	return value, found
}

// amazon speaks the JSON protocol of Secrets Manager and of Systems Manager.
func amazon(t *testing.T) string {
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			SecretId, VersionId, VersionStage, Name string
			WithDecryption                          bool
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		answer := func(status int, v any) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(v)
		}
		refuse := func(code, message string) {
			answer(400, map[string]string{"__type": code, "message": message})
		}
		// A region shows in what the request is signed for.
		if in.SecretId == "elsewhere" && !strings.Contains(r.Header.Get("Authorization"), "/eu-west-3/") {
			refuse("ResourceNotFoundException", "wrong region")
			return
		}
		switch r.Header.Get("X-Amz-Target") {
		case "secretsmanager.GetSecretValue":
			name := in.SecretId
			if i := strings.LastIndex(name, ":secret:"); i >= 0 {
				name = name[i+len(":secret:"):]
			}
			switch value, found := lookup(strings.TrimPrefix(name, "orders/"), in.VersionId+in.VersionStage); {
			case name == "forbidden":
				refuse("AccessDeniedException", "User: arn:x is not authorized")
			case name == "elsewhere":
				answer(200, map[string]string{"SecretString": "there"})
			case name == "binary":
				answer(200, map[string]string{"SecretBinary": base64.StdEncoding.EncodeToString([]byte("\x01\x02"))})
			case in.VersionId != "" && len(in.VersionId) < 32 || len(in.VersionStage) >= 32:
				refuse("InvalidParameterException", "a label is not an id")
			case !found:
				refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
			default:
				answer(200, map[string]string{"SecretString": value})
			}
		case "AmazonSSM.GetParameter":
			value, found := lookup(strings.TrimPrefix(in.Name, "/orders/"), "")
			switch {
			case !in.WithDecryption:
				refuse("ValidationException", "would be encrypted")
			case in.Name == "/forbidden":
				refuse("AccessDeniedException", "The ciphertext refers to a customer master key")
			case in.Name == "/orders/plain:7":
				refuse("ParameterVersionNotFound", "")
			case !found:
				refuse("ParameterNotFound", "")
			default:
				answer(200, map[string]any{"Parameter": map[string]string{"Value": value}})
			}
		default:
			refuse("UnknownOperationException", r.Header.Get("X-Amz-Target"))
		}
	}))
	t.Cleanup(server.Close)
	return url.QueryEscape(server.URL)
}

// google is Secret Manager over gRPC.
type google struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer
	ill *atomic.Int64 // calls for a secret of a service that is not well
}

func (g google) AccessSecretVersion(_ context.Context, in *secretmanagerpb.AccessSecretVersionRequest) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	parts := strings.Split(in.Name, "/")
	name, version := parts[3], parts[5]
	if version == "latest" {
		version = ""
	}
	value, found := lookup(name, version)
	sum := int64(crc32.Checksum([]byte(value), crc32.MakeTable(crc32.Castagnoli)))
	switch {
	case parts[1] != "orders-prod", name == "forbidden":
		return nil, status.Error(codes.PermissionDenied, "Permission 'secretmanager.versions.access' denied")
	case name == "damaged":
		value, sum, found = hunter, 1, true
	case name == "ill":
		if g.ill.Add(1)%4 != 0 {
			return nil, status.Error(codes.Unavailable, "not well")
		}
		value, sum, found = hunter, int64(crc32.Checksum([]byte(hunter), crc32.MakeTable(crc32.Castagnoli))), true
	case name == "disabled":
		return nil, status.Error(codes.FailedPrecondition, "Secret Version is in DISABLED state.")
	}
	if !found {
		return nil, status.Error(codes.NotFound, "Secret not found")
	}
	return &secretmanagerpb.AccessSecretVersionResponse{Payload: &secretmanagerpb.SecretPayload{Data: []byte(value), DataCrc32C: &sum}}, nil
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func googleServer(t *testing.T) string {
	l, server := listen(t), grpc.NewServer()
	secretmanagerpb.RegisterSecretManagerServiceServer(server, google{ill: &atomic.Int64{}})
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// microsoft is one vault. It fails when credentials come to it: it is no vault of theirs.
func microsoft(t *testing.T, calls *atomic.Int64) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials were sent to a stand-in")
		}
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // secrets/NAME[/VERSION]
		version := ""
		if len(parts) == 3 {
			version = parts[2]
		}
		value, found := lookup(parts[1], version)
		w.Header().Set("Content-Type", "application/json")
		refuse := func(status int, code string) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":{"code":%q,"message":"no"}}`, code)
		}
		switch {
		case parts[1] == "forbidden":
			refuse(http.StatusForbidden, "Forbidden")
		case parts[1] == "ill":
			refuse(http.StatusServiceUnavailable, "Ill")
		case !found:
			refuse(http.StatusNotFound, "SecretNotFound")
		default:
			_ = json.NewEncoder(w).Encode(map[string]string{"value": value})
		}
	}))
	t.Cleanup(server.Close)
	return url.QueryEscape(server.URL)
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	for name, versions := range kept {
		if err := os.WriteFile(filepath.Join(dir, name+" file"), []byte(versions[""]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET_TEST", hunter)
	t.Setenv("SECRET_TEST_EMPTY", "")
	var calls atomic.Int64
	aws, gcp, azure := "endpoint="+amazon(t), "endpoint="+googleServer(t), "endpoint="+microsoft(t, &calls)
	file := "file://" + dir + "/"

	for _, c := range []struct{ text, want, err string }{
		{text: "aws-sm://orders/plain?" + aws, want: hunter},
		{text: "aws-sm://orders%2Fplain?" + aws, want: hunter},
		{text: "aws-sm://arn:aws:secretsmanager:eu-west-3:123456789012:secret:plain?" + aws, want: hunter},
		{text: "aws-sm://arn:aws:secretsmanager:eu-west-3:123456789012:secret:plain?region=eu-west-3&" + aws, want: hunter},
		{text: "aws-sm://arn:aws:secretsmanager:eu-west-3:123456789012:secret:plain?region=us-east-1&" + aws, err: "is not the ARN's region, eu-west-3"},
		{text: "aws-sm://elsewhere?region=eu-west-3&" + aws, want: "there"},
		{text: "aws-sm://elsewhere?region=eu-west-1&" + aws, err: "there is no such secret, or no such version of it, in eu-west-1"},
		{text: "aws-sm://plain?version=old-label&" + aws, want: "old"},
		{text: "aws-sm://plain?version=0123456789abcdef0123456789abcdef&" + aws, want: "by-id"},
		{text: "aws-sm://object?field=password&" + aws, want: hunter},
		{text: "aws-sm://object?field=pin&" + aws, want: "1234567890123456789"},
		{text: "aws-sm://binary?" + aws, want: "\x01\x02"},
		{text: "aws-sm://line?" + aws, want: hunter},
		{text: "aws-sm://object?field=passwort&" + aws, err: "has no field passwort"},
		{text: "aws-sm://object?field=nested&" + aws, err: "its field nested is not a text"},
		{text: "aws-sm://object?field=none&" + aws, err: "its field none is not a text"},
		{text: "aws-sm://object?field=empty&" + aws, err: "is empty"},
		{text: "aws-sm://plain?field=password&" + aws, err: "is not a JSON object, which field=password takes"},
		{text: "aws-sm://broken?field=password&" + aws, err: "is not a JSON object"},
		{text: "aws-sm://empty?" + aws, err: "is empty"},
		{text: "aws-sm://large?" + aws, err: "is larger than 65536 bytes"},
		{text: "aws-sm://absent?" + aws, err: "(reading it takes secretsmanager:GetSecretValue on secret absent"},
		{text: "aws-sm://forbidden?" + aws, err: "access denied: User: arn:x is not authorized (reading it takes secretsmanager:GetSecretValue"},
		{text: "aws-sm://a b?" + aws, err: "want a secret's name"},
		{text: "aws-sm://?" + aws, err: "want a secret's name"},
		{text: "aws-sm://plain?fields=x", err: "has no parameter fields: it is one of region, version, field, endpoint"},
		{text: "aws-sm://plain?field=a&field=b", err: "parameter field is given twice"},
		{text: "aws-sm://plain?field=", err: "parameter field is empty"},
		{text: "aws-sm://plain?field=%zz", err: "invalid URL escape"},
		{text: "aws-sm://plain%zz", err: "invalid URL escape"},
		{text: "aws-sm://plain?endpoint=http://u:" + hunter + "@h", err: "endpoint= has a user or a password"},
		{text: "aws-sm://plain?endpoint=nowhere", err: "want a URL such as"},

		{text: "ssm:///orders/plain?" + aws, want: hunter},
		{text: "ssm://plain?region=eu-central-1&" + aws, want: hunter},
		{text: "ssm:///orders/object?field=user&" + aws, want: "orders"},
		{text: "ssm:///orders/plain:7?" + aws, err: "there is no such version of the parameter"},
		{text: "ssm:///orders/absent?region=eu-central-1&" + aws, err: "there is no such parameter in eu-central-1 (reading it takes ssm:GetParameter on parameter /orders/absent, and kms:Decrypt"},
		{text: "ssm:///forbidden?" + aws, err: "access denied: The ciphertext"},
		{text: "ssm://orders/plain?" + aws, err: "begins with / when there is one in it"},
		{text: "ssm:///orders/plain?version=7", err: "has no parameter version"},

		{text: "gcp-sm://orders-prod/plain?" + gcp, want: hunter},
		{text: "gcp-sm://orders-prod/plain/latest?" + gcp, want: hunter},
		{text: "gcp-sm://orders-prod/plain/7?" + gcp, want: "seven"},
		{text: "gcp-sm://orders-prod/object?field=password&" + gcp, want: hunter},
		{text: "gcp-sm://orders-prod/absent?" + gcp, err: "there is no such secret, or no such version of it (reading it takes Secret Manager Secret Accessor on secret orders-prod/absent)"},
		{text: "gcp-sm://orders-prod/forbidden?" + gcp, err: "access denied, or there is no such secret"},
		{text: "gcp-sm://orders-prod/disabled?" + gcp, err: "DISABLED"},
		{text: "gcp-sm://orders-prod/damaged?" + gcp, err: "damaged on its way"},
		{text: "gcp-sm://orders-prod?" + gcp, err: "want gcp-sm://PROJECT/SECRET[/VERSION]"},
		{text: "gcp-sm://Orders/plain?" + gcp, err: `project "Orders"`},
		{text: "gcp-sm://orders-prod/pl.ain?" + gcp, err: `secret "pl.ain"`},
		{text: "gcp-sm://orders-prod/plain/7.1?" + gcp, err: `version "7.1"`},
		{text: "gcp-sm://orders-prod/plain?endpoint=nowhere", err: `endpoint "nowhere"`},

		{text: "azure-kv://orders/plain?" + azure, want: hunter},
		{text: "azure-kv://orders/plain/7?" + azure, want: "seven"},
		{text: "azure-kv://orders.vault.azure.cn/object?field=password&" + azure, want: hunter},
		{text: "azure-kv://orders/absent?" + azure, err: "the vault has no such secret, or no such version of it (reading it takes Key Vault Secrets User on orders/absent)"},
		{text: "azure-kv://orders/forbidden?" + azure, err: "access denied: Forbidden"},
		{text: "azure-kv://orders/plain/7/8?" + azure, err: "want azure-kv://VAULT/SECRET[/VERSION]"},
		{text: "azure-kv://or_ders/plain?" + azure, err: `vault "or_ders"`},
		{text: "azure-kv://orders/pl_ain?" + azure, err: `secret "pl_ain"`},
		{text: "azure-kv://orders/plain/a-b?" + azure, err: `version "a-b"`},
		{text: "azure-kv://orders/plain?endpoint=https://elsewhere.example", err: "want a URL on this machine"},

		{text: file + "plain%20file", want: hunter},
		{text: file + "line%20file", want: hunter},
		{text: file + "object%20file?field=password", want: hunter},
		{text: file + "large%20file", err: "is larger than 65536 bytes"},
		{text: file + "empty%20file", err: "is empty"},
		{text: file + "absent", err: "no such file or directory"},
		{text: file, err: "not a regular file"},
		{text: file + "pipe", err: "not a regular file"},
		{text: "file://run/secrets/db", err: "want an absolute path"},
		{text: "env://SECRET_TEST", want: hunter},
		{text: "env://SECRET_TEST_EMPTY", err: "is empty"},
		{text: "env://SECRET_TEST_ABSENT", err: "the environment variable is not set"},
	} {
		got, err := Resolve(t.Context(), c.text)
		switch {
		case c.err == "" && err != nil, c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %v, want %s", c.text, err, c.err)
		case got.Reveal() != c.want:
			t.Errorf("%s is %q, want %q", c.text, got.Reveal(), c.want)
		}
		if err == nil {
			continue
		}
		if strings.Contains(err.Error(), hunter) {
			t.Errorf("the error shows the secret: %v", err)
		}
		if !strings.HasPrefix(err.Error(), strings.SplitN(c.text, "?", 2)[0]) && !strings.Contains(c.text, hunter) {
			t.Errorf("the error does not name %s: %v", c.text, err)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %v", err)
		}
	}
	if calls.Load() == 0 {
		t.Error("the vault was never asked")
	}
}

func TestResolveNotAReference(t *testing.T) {
	if _, err := Resolve(t.Context(), hunter); err == nil || strings.Contains(err.Error(), hunter) {
		t.Fatalf("a password itself: %v", err)
	}
	if Access(hunter) != "" || Access("env://A") != "environment variable A" {
		t.Fatal("Access")
	}
}

// TestResolveSecretPasses: a start may try again what may only have failed just now.
func TestResolveSecretPasses(t *testing.T) {
	var calls atomic.Int64
	azure := "endpoint=" + microsoft(t, &calls)
	var temporary interface{ Temporary() bool }
	if _, err := Resolve(t.Context(), "azure-kv://orders/ill?"+azure); !errors.As(err, &temporary) || calls.Load() != 3 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	if _, err := Resolve(t.Context(), "azure-kv://orders/absent?"+azure); err == nil || errors.As(err, &temporary) && temporary.Temporary() {
		t.Errorf("an absent secret passes: %v", err)
	}
	google := "?endpoint=" + googleServer(t)
	if _, err := Resolve(t.Context(), "gcp-sm://orders-prod/damaged"+google); !errors.As(err, &temporary) {
		t.Errorf("damage does not pass: %v", err)
	}
	// Three calls fail, and only three: the fourth is the next attempt's first, and is answered.
	if _, err := Resolve(t.Context(), "gcp-sm://orders-prod/ill"+google); !errors.As(err, &temporary) || !strings.Contains(err.Error(), "not well") {
		t.Errorf("a service that is not well: %v", err)
	}
	if s, err := Resolve(t.Context(), "gcp-sm://orders-prod/ill"+google); err != nil || s.Reveal() != hunter {
		t.Errorf("and that is well again: %v", err)
	}
}

// TestResolveSecretIsBounded: a server that takes connections and says nothing does not keep a start.
func TestResolveSecretIsBounded(t *testing.T) {
	amazon(t) // the environment
	silent := listen(t)
	t.Cleanup(func() { silent.Close() })
	at := silent.Addr().String()
	for _, text := range []string{"aws-sm://a?endpoint=http://" + at, "ssm://a?endpoint=http://" + at, "gcp-sm://project/a?endpoint=" + at, "azure-kv://vault/a?endpoint=http://" + at} {
		_, err := resolve(t.Context(), text, 100*time.Millisecond)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 100ms") {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Resolve(ctx, text); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}
