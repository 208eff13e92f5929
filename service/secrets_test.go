package service

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hunter = "hunter2/@?&= x"

// secretFile keeps a secret, and returns the reference to it.
func secretFile(t *testing.T, value string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

func TestResolveSecrets(t *testing.T) {
	t.Setenv("SECRETS_TEST_USER", "orders")
	reference := secretFile(t, hunter)
	nested := secretFile(t, `{"a":"`+hunter+`"}`)
	raw := "postgres://db:5432/d/t?key=id&user=env://SECRETS_TEST_USER&password=" + reference + "&token=" + nested + "?field=a"
	l, err := parseLocation("--enrich", raw)
	if err != nil {
		t.Fatal(err)
	}
	if l.reveal("password") != reference { // before it is resolved
		t.Fatal(l.reveal("password"))
	}
	l, err = resolveSecrets(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"key": "id", "user": "orders", "password": hunter, "token": hunter, "other": ""} {
		if got := l.reveal(name); got != want || l.revealed().Get(name) != want {
			t.Errorf("%s is %q and %q, want %q", name, got, l.revealed().Get(name), want)
		}
	}
	// Whatever a message may quote keeps the reference.
	if l.raw != raw || l.params.Get("password") != reference {
		t.Errorf("the location became %s with %v", l.raw, l.params)
	}
	for _, err := range []error{l.only("key"), l.unknown(), fmt.Errorf("%v %+v %#v", l, l, l)} {
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("shows the secret: %v", err)
		}
	}
	if _, err := l.truth("password", false); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), reference) {
		t.Errorf("shows the secret, or no reference: %v", err)
	}
}

func TestResolveSecretsFails(t *testing.T) {
	for parameter, want := range map[string]string{
		"password=file:///nowhere/secret": "--enrich: password: file:///nowhere/secret: no such file or directory (reading it takes read access to /nowhere/secret)",
		"on-error=aws-sm://a?fild=b":      "has no parameter fild",
		"token=env://A&token=env://B":     "token is a secret, and given twice",
	} {
		l, err := parseLocation("--enrich", "redis://h?"+parameter)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := resolveSecrets(t.Context(), l); err == nil || !strings.Contains(err.Error(), want) || ExitCode(err) != 2 {
			t.Errorf("%s: %v, exit %d", parameter, err, ExitCode(err))
		}
	}
}

func TestRefuseSecretsInClear(t *testing.T) {
	clear := []string{
		"postgres://user:hunter2@db/d/t?key=id",
		"postgres://user:hunter2@db:5432/d/t?key=id",
		"postgres://:hunter2@db/d/t",
		"redis://user:hunt/hunter2@db:6379/0",
		"redis://user:hunter2@a:1,b:2",
		"https://user:hunter2@host/users/{key}",
	}
	for _, name := range []string{"password", "Password", "pass%77ord", "passwd", "pass", "pwd", "db-pass", "token", "access_token", "accessToken",
		"secret", "client_secret", "api-key", "apikey", "apiKey", "account-key", "secret_access_key", "sas", "sig", "authorization", "auth", "connection-string", "dsn"} {
		clear = append(clear, "https://host/users?on=id&"+name+"=hunter2")
	}
	for _, near := range []string{"/run/hunter2", "file:/run/hunter2", "%20env://hunter2", "AWS-SM://hunter2", "vault://hunter2"} {
		clear = append(clear, "redis://h?password="+near)
	}
	for _, raw := range clear {
		l, err := parseLocation("--enrich", raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = resolveSecrets(t.Context(), l)
		if err == nil || ExitCode(err) != 2 || !strings.Contains(err.Error(), "=aws-sm://NAME") || !strings.Contains(err.Error(), "=file:///PATH") {
			t.Errorf("%s: %v", raw, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("shows the secret: %v", err)
		}
		if got := Redact(raw); strings.Contains(got, "hunter2") || !strings.Contains(got, "[redacted]") {
			t.Errorf("%s: %s", raw, got)
		}
	}

	for _, raw := range []string{
		"postgres://db:5432/d/t?key=id&user=me&password=env://HOME&tls=full",
		"postgres://user@db/d/t?key=user_password&partition-key=a&sort-key=b&keys=2",
		"http://host:8080/users/@me/{key}?password=", "redis://a:6379,b:6379/0?prefix=user:@", "https://host/a:b@c",
		"s3://bucket/a:b@c", "/tmp/a:b@c.csv", "file:///tmp/a:b@c", "a:b@c.csv?key=id", "-",
		"kinesis://arn:aws:kinesis:eu-west-1:123456789012:stream/orders?endpoint=http://127.0.0.1:4567",
		"https://host/{key}?author=x&compass=n&bypass=1&design=2&tokens=3&passport=4&mapping=5",
	} {
		l, err := parseLocation("--enrich", raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.refuseClear(); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if got := Redact(raw); got != raw {
			t.Errorf("%s became %s", raw, got)
		}
	}
}

func TestRedactSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"--enrich: user=redis://u:hunter2@h:1/0?password=hunter2: has no parameter": "--enrich: user=redis://u:[redacted]@h:1/0?password=[redacted] has no parameter",
		"http://host:80/a,redis://u:hunter2@h,redis://:hunter2@h":                   "http://host:80/a,redis://u:[redacted]@h",
		"token=redis://h?password=hunter2?x&on=id":                                  "token=redis://h?password=[redacted]&on=id",
		"x?password=aws-sm://a@b?field=c%26region=d&api-key=hunter2":                "x?password=aws-sm://a@b?field=c%26region=d&api-key=[redacted]",
		"x?password=%zzhunter2":                                                     "x?password=[redacted]",
		"x?password=aws-sm%3A%2F%2Fa&password=hunter2":                              "x?password=aws-sm%3A%2F%2Fa&password=[redacted]",
		"x?password=aws-sm://arn:aws:secretsmanager:r:1:secret:a@b":                 "x?password=aws-sm://arn:aws:secretsmanager:r:1:secret:a@b",
		"u:p@ss redis://u:hunter2@hunter2@h":                                        "u:p@ss redis://u:[redacted]@h",
		"x?password=":                                                               "x?password=",
	} {
		if got := Redact(text); got != want {
			t.Errorf("%s became\n%s, want\n%s", text, got, want)
		}
	}
}

// TestSettingErrorsHideSecrets: whatever message quotes a URL, a secret in it does not show.
func TestSettingErrorsHideSecrets(t *testing.T) {
	for _, raw := range []string{"redis://h?password=hunter2&x=1", "redis://u:hunter2@h?x=1", "s3://b?sas=hunter2&x=%zz"} {
		l, err := parseLocation("--sink", raw)
		if err == nil {
			err = l.only("password")
		}
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "[redacted]") {
			t.Errorf("%s: %v", raw, err)
		}
		// The negative control: the problem itself holds it.
		var setting *SettingError
		if !errors.As(err, &setting) || !strings.Contains(setting.Problem, "hunter2") {
			t.Errorf("%s: nothing had to be hidden", raw)
		}
	}
}

func TestResolveSecretsPasses(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := silent.Addr().String()
	silent.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	l, err := parseLocation("--enrich", "redis://h?password=aws-sm://a?endpoint=http://"+at)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is wrong with the setting when nobody answers: exit code 1, and a supervisor starts it again.
	if _, err := resolveSecrets(t.Context(), l); err == nil || ExitCode(err) != 1 || !strings.Contains(err.Error(), "aws-sm://a?endpoint=http://"+at) {
		t.Errorf("%v, exit %d", err, ExitCode(err))
	}
}
