package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/azure"
	"github.com/millstream/millstream/cloud/gcp"
)

const (
	// MaxSize is the most bytes of a secret, which is what AWS and Google Cloud keep at most.
	MaxSize = 64 << 10
	// wait bounds Resolve.
	wait = 10 * time.Second
)

// schemes are the kinds of references and the parameters of each.
var schemes = map[string][]string{
	"aws-sm":   {"region", "version", "field", "endpoint"},
	"ssm":      {"region", "field", "endpoint"},
	"gcp-sm":   {"field", "endpoint"},
	"azure-kv": {"field", "endpoint"},
	"file":     {"field"},
	"env":      {"field"},
}

// IsReference reports whether a text says where a secret is kept, and is not the secret itself. Whether
// there is one, and what is wrong with the rest of the text, is Resolve's to say.
func IsReference(text string) bool {
	scheme, _, found := strings.Cut(text, "://")
	_, known := schemes[scheme]
	return found && known
}

// reference is a reference's text, taken apart.
type reference struct {
	scheme, rest                     string
	region, version, field, endpoint string
}

// Resolve reads the secret that a reference names, within 10 s:
//
//	aws-sm://NAME-OR-ARN[?region=&version=]  AWS Secrets Manager; version is an id or a label such as AWSPREVIOUS
//	ssm:///PATH/NAME[?region=]               AWS Systems Manager, decrypted; NAME:VERSION or NAME:LABEL too
//	gcp-sm://PROJECT/SECRET[/VERSION]        Google Cloud Secret Manager
//	azure-kv://VAULT/SECRET[/VERSION]        Azure Key Vault
//	file:///PATH                             a file of at most 64 KiB, such as one that an orchestrator mounts
//	env://NAME                               an environment variable
//
// field=NAME takes one field of a secret that is a JSON object. endpoint= is a server that stands in for
// a cloud's own. Special characters are percent-encoded, as in any URL. The line break that editors and
// shells leave at the end of a value is not part of it, and an empty value is an error.
//
// An error names the reference and the access that reading it takes, and never holds the value. It wraps
// the cause: context.DeadlineExceeded when there was no answer in time.
func Resolve(ctx context.Context, text string) (Secret, error) {
	return resolve(ctx, text, wait)
}

func resolve(ctx context.Context, text string, within time.Duration) (Secret, error) {
	r, err := parse(text)
	if err != nil {
		return Secret{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	value, err := r.read(bounded)
	if err == nil {
		value, err = r.finish(value)
	}
	switch {
	case err == nil:
		return New(value), nil
	case ctx.Err() != nil:
		return Secret{}, fmt.Errorf("%s: %w", text, ctx.Err())
	case bounded.Err() != nil:
		return Secret{}, fmt.Errorf("%s: no answer within %v: check its parameters and the network: %w", text, within, bounded.Err())
	}
	return Secret{}, fmt.Errorf("%s: %w (reading it takes %s)", text, err, r.access())
}

// Access words the least permission that reading a reference's secret takes; empty for what is not a
// reference.
func Access(text string) string {
	r, err := parse(text)
	if err != nil {
		return ""
	}
	return r.access()
}

func (r reference) access() string {
	switch r.scheme {
	case "aws-sm":
		return "secretsmanager:GetSecretValue on secret " + r.rest + ", and kms:Decrypt if its key is your own"
	case "ssm":
		return "ssm:GetParameter on parameter " + r.rest + ", and kms:Decrypt if its key is your own"
	case "gcp-sm":
		return "Secret Manager Secret Accessor on secret " + r.rest
	case "azure-kv":
		return "Key Vault Secrets User on " + r.rest
	case "file":
		return "read access to " + r.rest
	}
	return "environment variable " + r.rest
}

func parse(text string) (reference, error) {
	if !IsReference(text) {
		return reference{}, errors.New("not a reference to a secret") // and perhaps a secret: not shown
	}
	var r reference
	var rest string
	r.scheme, rest, _ = strings.Cut(text, "://")
	rest, query, _ := strings.Cut(rest, "?")
	var err error
	if r.rest, err = url.PathUnescape(rest); err != nil {
		return r, fmt.Errorf("%s: %w", text, err)
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return r, fmt.Errorf("%s: %w", text, err)
	}
	for name, values := range params {
		known := schemes[r.scheme]
		switch {
		case !slices.Contains(known, name):
			return r, fmt.Errorf("%s: has no parameter %s: it is one of %s", text, name, strings.Join(known, ", "))
		case len(values) > 1:
			return r, fmt.Errorf("%s: parameter %s is given twice", text, name)
		case values[0] == "":
			return r, fmt.Errorf("%s: parameter %s is empty", text, name)
		}
	}
	r.region, r.version, r.field, r.endpoint = params.Get("region"), params.Get("version"), params.Get("field"), params.Get("endpoint")
	if strings.Contains(r.endpoint, "@") {
		return r, fmt.Errorf("%s://: endpoint= has a user or a password in it", r.scheme)
	}
	return r, nil
}

// read is the one switch from references to where secrets are kept.
func (r reference) read(ctx context.Context) (string, error) {
	switch r.scheme {
	case "aws-sm":
		return aws.Secret(ctx, aws.Options{Region: r.region, Endpoint: r.endpoint}, r.rest, r.version)
	case "ssm":
		return aws.Parameter(ctx, aws.Options{Region: r.region, Endpoint: r.endpoint}, r.rest)
	case "gcp-sm":
		parts, err := r.parts("PROJECT/SECRET[/VERSION]")
		if err != nil {
			return "", err
		}
		return gcp.Secret(ctx, r.endpoint, parts[0], parts[1], parts[2])
	case "azure-kv":
		parts, err := r.parts("VAULT/SECRET[/VERSION]")
		if err != nil {
			return "", err
		}
		return azure.Secret(ctx, r.endpoint, parts[0], parts[1], parts[2])
	case "file":
		return readFile(r.rest)
	}
	value, found := os.LookupEnv(r.rest)
	if !found {
		return "", errors.New("the environment variable is not set")
	}
	return value, nil
}

// parts splits what follows the scheme in two or three; the third may be empty.
func (r reference) parts(want string) ([3]string, error) {
	parts := strings.Split(r.rest, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return [3]string{}, fmt.Errorf("want %s://%s", r.scheme, want)
	}
	if len(parts) == 2 {
		parts = append(parts, "")
	}
	return [3]string(parts), nil
}

// readFile reads a regular file: a pipe or a device could keep the start waiting for ever.
func readFile(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", errors.New("want an absolute path, as in file:///run/secrets/password")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", errors.Unwrap(err) // the path is in the reference
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	return string(data), err
}

// finish takes the field out of a value, and refuses one that cannot be meant. Its errors do not show it.
func (r reference) finish(value string) (string, error) {
	if len(value) > MaxSize {
		return "", fmt.Errorf("is larger than %d bytes", MaxSize)
	}
	if r.field != "" {
		var object map[string]json.RawMessage
		if json.Unmarshal([]byte(value), &object) != nil {
			return "", fmt.Errorf("is not a JSON object, which field=%s takes", r.field)
		}
		raw, found := object[r.field]
		if !found {
			return "", fmt.Errorf("has no field %s", r.field)
		}
		if raw[0] != '"' { // a number, such as a PIN, is taken as it is written
			if strings.ContainsAny(string(raw[:1]), "{[n") {
				return "", fmt.Errorf("its field %s is not a text", r.field)
			}
			value = string(raw)
		} else if json.Unmarshal(raw, &value) != nil {
			return "", fmt.Errorf("its field %s is not a text", r.field)
		}
	}
	if line, found := strings.CutSuffix(value, "\n"); found {
		value = strings.TrimSuffix(line, "\r")
	}
	if value == "" {
		return "", errors.New("is empty")
	}
	return value, nil
}
