package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const hunter = "hunter2"

func TestSecretDoesNotShowItself(t *testing.T) {
	s := New(hunter)
	if s.Reveal() != hunter || (Secret{}).Reveal() != "" {
		t.Fatal("Reveal does not reveal")
	}
	type options struct {
		Password Secret
		own      Secret
		Pointer  *Secret
		Any      any
	}
	nested := options{s, s, &s, s}
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s"} {
		if got := fmt.Sprintf(verb, s); got != redacted {
			t.Errorf("%s prints %s", verb, got)
		}
		for _, value := range []any{s, &s, nested, &nested, []Secret{s}, map[string]Secret{"a": s}} {
			printed = append(printed, fmt.Sprintf(verb, value))
		}
	}
	printed = append(printed, fmt.Sprint(s), fmt.Sprintln(nested), s.String(), fmt.Errorf("%w: %v", errors.New("no"), s).Error())

	for _, value := range []any{s, &s, nested, map[string]any{"password": s}, []Secret{s}} {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		printed = append(printed, string(data))
	}
	if data, _ := json.Marshal(s); string(data) != `"[redacted]"` {
		t.Errorf("JSON is %s", data)
	}
	data, err := xml.Marshal(nested.Password)
	if err != nil {
		t.Fatal(err)
	}
	printed = append(printed, string(data))

	var logged bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		l := slog.New(handler)
		l.Info("a", "password", s, "pointer", &s, "options", nested, slog.Group("g", "password", s))
		l.With("password", s).Error("b", "list", []Secret{s})
	}
	printed = append(printed, logged.String())
	hexed := fmt.Sprintf("%x", hunter)
	for _, text := range printed {
		if strings.Contains(text, hunter) || strings.Contains(strings.ToLower(text), hexed) {
			t.Errorf("shows itself: %s", text)
		}
	}
	if n := strings.Count(logged.String(), redacted); n < 8 {
		t.Errorf("the log says [redacted] %d times:\n%s", n, &logged)
	}
}

// TestSecretNegative shows that a value held plainly would be printed where nobody asks it.
func TestSecretNegative(t *testing.T) {
	type plain struct{ value string }
	if got := fmt.Sprintf("%+v", struct{ own plain }{plain{hunter}}); !strings.Contains(got, hunter) {
		t.Fatalf("fmt prints %s: the pointer may not be needed any more", got)
	}
}

func TestIsReference(t *testing.T) {
	for text, want := range map[string]bool{
		"aws-sm://orders/db": true, "ssm:///orders/db": true, "gcp-sm://p/s": true, "azure-kv://v/s": true,
		"file:///run/secrets/db": true, "env://DB_PASSWORD": true,
		"aws-sm://": true, // wrong, and Resolve says so
		"":          false, hunter: false, "/run/secrets/db": false, "file:/run": false, "AWS-SM://x": false,
		" env://X": false, "https://x": false, "vault://x": false, "a aws-sm://x": false,
	} {
		if IsReference(text) != want {
			t.Errorf("IsReference(%q) = %v", text, !want)
		}
	}
}
