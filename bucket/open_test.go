package bucket_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millstream/millstream/bucket"
)

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// noAzure makes a test independent of the account of whoever runs it.
func noAzure(t *testing.T) {
	for _, name := range []string{"AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"} {
		t.Setenv(name, "")
	}
}

func TestOpenErrors(t *testing.T) {
	noAzure(t)
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	file := writeFile(t, filepath.Join(t.TempDir(), "file"), nil)
	for raw, want := range map[string]string{
		"":                                 "the path of the folder is empty",
		"ftp://host/dir":                   `ftp://host/dir: unknown kind of store "ftp": it is a path, file://, s3://, gs://, azblob:// or mem:`,
		"s3://user:hunter2@b/p":            "s3://b/p: credentials do not belong in the URL; they come from the environment",
		"s3://b/p?regoin=x":                "s3://b/p: a s3: store has no parameter regoin; it has endpoint, region",
		"s3://b?secret=hunter2":            "s3://b: a s3: store has no parameter secret; it has endpoint, region",
		"s3://b?region=a&region=b":         "s3://b: parameter region is given twice",
		"s3://b?region=%zzhunter2":         "s3://b: the parameters cannot be read",
		"s3:///p":                          "s3:///p: the bucket's name is missing",
		"s3://b/../p":                      `s3://b/../p: object name "../p": a segment is empty, . or ends in ..`,
		"s3://b":                           "s3://b: the region is missing: add ?region= or set AWS_REGION",
		"gs://b?region=x":                  "gs://b: a gs: store has no parameter region; it has endpoint",
		"mem:x":                            "mem:x: write mem: alone; every one is separate",
		"mem:?x=y":                         "mem:: a mem: store has no parameters (x)",
		"file://host/dir":                  "file://host/dir: write file:///absolute/path, or a path alone",
		"file:relative":                    "file:relative: write file:///absolute/path, or a path alone",
		"./out?compressed=gzip&b=c":        "./out: a folder has no parameter compressed, b; in a file:// URL a name's own question mark is %3F",
		"file:///tmp/out?compression=gzip": "file:///tmp/out: a file: store has no parameters (compression)",
		"azblob://c/p":                     "azblob://c: the storage account is missing: add ?account=, or set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING",
		file + "/below":                    file + "/below: a file is where a folder should be: not a directory",
		"file://" + file:                   file + ": a file is where a folder should be: not a directory",
	} {
		b, err := bucket.Open(t.Context(), raw)
		if err == nil {
			b.Close()
			t.Errorf("Open(%q) succeeded", raw)
		} else if err.Error() != want {
			t.Errorf("Open(%q)\n got %s\nwant %s", raw, err, want)
		}
	}
}

func TestOpenFolders(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for raw, want := range map[string]string{
		"state":                           "state",
		"./a/b":                           "a/b",
		"file://" + dir + "/with%20space": "with space",
		"file://" + dir + "/what%3F":      "what?",
		"./with%20percent":                "with%20percent",
	} {
		b := open(t, raw)
		if err := b.Create(t.Context(), "x", nil); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, want, "x")); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestAzureCredentials(t *testing.T) {
	noAzure(t)
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;hunter2")
	_, err := bucket.Open(t.Context(), "azblob://c")
	if err == nil || !strings.Contains(err.Error(), "AZURE_STORAGE_CONNECTION_STRING cannot be read") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	if _, err = bucket.Open(t.Context(), "azblob://c?account=x"); err == nil || !strings.Contains(err.Error(), "remove account and endpoint") {
		t.Error(err)
	}
	noAzure(t)
	t.Setenv("AZURE_STORAGE_KEY", "not base64, hunter2")
	if _, err = bucket.Open(t.Context(), "azblob://c?account=x"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

// TestAnswers pins what each provider's answers mean. Above all, a store that cannot be asked is never
// an empty one, and only a certain conflict is ErrExists.
func TestAnswers(t *testing.T) {
	noAzure(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	t.Setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2026&sig=hunter2")
	xml := func(code, message string) string {
		return `<?xml version="1.0" encoding="utf-8"?><Error><Code>` + code + `</Code><Message>` + message + `</Message></Error>`
	}
	stores := map[string]string{"s3": "s3://b?endpoint=", "gs": "gs://b?endpoint=", "az": "azblob://b?account=a&endpoint="}
	for _, c := range []struct {
		store, op string
		status    int
		code      string // x-ms-error-code on Azure
		body      string
		want      error  // nil: an error that is neither of ours
		text      string // and says this
	}{
		{"s3", "get", 404, "", xml("NoSuchKey", "gone"), bucket.ErrNotFound, ""},
		{"s3", "get", 404, "", xml("NoSuchBucket", "The specified bucket does not exist"), nil, "NoSuchBucket: The specified bucket does not exist (HTTP 404)"},
		{"s3", "get", 403, "", xml("AccessDenied", "Access Denied"), nil, "AccessDenied: Access Denied (HTTP 403)"},
		{"s3", "get", 301, "", xml("PermanentRedirect", "use the other endpoint"), nil, "PermanentRedirect"},
		{"s3", "delete", 404, "", xml("NoSuchBucket", "no bucket"), nil, "NoSuchBucket"},
		{"s3", "list", 404, "", xml("NoSuchBucket", "no bucket"), nil, "NoSuchBucket"},
		{"s3", "create", 412, "", xml("PreconditionFailed", "taken"), bucket.ErrExists, ""},
		{"s3", "create", 409, "", xml("ConditionalRequestConflict", "in progress"), nil, "ConditionalRequestConflict: in progress (HTTP 409)"},
		{"s3", "create", 400, "", xml("ExpiredToken", "The provided token has expired."), nil, "ExpiredToken: The provided token has expired. (HTTP 400)"},
		{"s3", "create", 503, "", xml("SlowDown", "Please reduce your request rate."), nil, "SlowDown"},
		{"gs", "get", 404, "", "", bucket.ErrNotFound, ""},
		{"gs", "get", 403, "", xml("AccessDenied", "Access denied."), nil, "Forbidden"},
		{"gs", "list", 403, "", `{"error":{"code":403,"message":"no storage.objects.list access"}}`, nil, "Forbidden: no storage.objects.list access (HTTP 403)"},
		{"gs", "delete", 403, "", `{"error":{"code":403,"message":"no"}}`, nil, "Forbidden: no (HTTP 403)"},
		{"gs", "create", 412, "", `{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold."}}`, bucket.ErrExists, ""},
		{"gs", "create", 404, "", `{"error":{"code":404,"message":"The specified bucket does not exist."}}`, nil, "Not Found: The specified bucket does not exist. (HTTP 404)"},
		{"gs", "create", 409, "", `{"error":{"code":409,"message":"conflict"}}`, nil, "Conflict: conflict (HTTP 409)"},
		{"az", "get", 404, "BlobNotFound", "", bucket.ErrNotFound, ""},
		{"az", "get", 404, "ContainerNotFound", "", nil, "ContainerNotFound (HTTP 404)"},
		{"az", "delete", 404, "ContainerNotFound", "", nil, "ContainerNotFound (HTTP 404)"},
		{"az", "get", 403, "AuthenticationFailed", "", nil, "AuthenticationFailed (HTTP 403)"},
		{"az", "create", 409, "BlobAlreadyExists", "", bucket.ErrExists, ""},
		{"az", "create", 412, "ConditionNotMet", "", bucket.ErrExists, ""},
		{"az", "create", 409, "ContainerBeingDeleted", "", nil, "ContainerBeingDeleted (HTTP 409)"},
		{"az", "create", 412, "LeaseIdMissing", "", nil, "LeaseIdMissing (HTTP 412)"},
	} {
		t.Run(c.store+" "+c.op+" "+http.StatusText(c.status)+c.code, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.code != "" {
					w.Header().Set("x-ms-error-code", c.code)
				}
				if strings.HasPrefix(c.body, "{") {
					w.Header().Set("Content-Type", "application/json")
				}
				w.WriteHeader(c.status)
				w.Write([]byte(c.body))
			}))
			defer server.Close()
			b := open(t, stores[c.store]+server.URL)
			var err error
			switch c.op {
			case "get":
				_, err = b.Get(t.Context(), "a/name")
			case "list":
				_, err = b.List(t.Context(), "a/name")
			case "delete":
				err = b.Delete(t.Context(), "a/name")
			case "create":
				err = b.Create(t.Context(), "a/name", []byte("x"))
			}
			if c.want != nil {
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				return
			}
			if err == nil || errors.Is(err, bucket.ErrExists) || errors.Is(err, bucket.ErrNotFound) {
				t.Fatalf("got %v, want an error of another kind", err)
			}
			if text := err.Error(); !strings.HasPrefix(text, "a/name: ") || !strings.Contains(text, c.text) || strings.ContainsAny(text, "\n\r") || strings.Contains(text, "hunter2") {
				t.Errorf("got %q, want one line with %q", text, c.text)
			}
		})
	}
}

// TestUnreachable: the reason is there, the signature is not.
func TestUnreachable(t *testing.T) {
	noAzure(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	t.Setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2026&sig=hunter2")
	server := httptest.NewServer(nil)
	server.Close() // a port where nobody listens
	for _, raw := range []string{"s3://b?endpoint=", "gs://b?endpoint=", "azblob://b?account=a&endpoint="} {
		t.Run(raw[:2], func(t *testing.T) {
			t.Parallel()
			err := bucket.Check(t.Context(), open(t, raw+server.URL))
			if err == nil {
				t.Fatal("a closed port passed")
			}
			text := err.Error()
			if !strings.Contains(text, "cannot be written") || !strings.Contains(text, "cannot reach "+server.URL) || !strings.Contains(text, "connection refused") ||
				strings.Contains(text, "hunter2") || strings.Contains(text, "\n") {
				t.Errorf("got %s", text)
			}
		})
	}
}
