package service

import (
	"io"
	"log/slog"
	"os"

	"github.com/millstream/millstream/stream"
)

// newLogger makes the program's logger, which writes to stderr, nil for the process' own, and makes it
// the default one.
func newLogger(s *Settings, stderr io.Writer) (*slog.Logger, error) {
	if stderr == nil {
		stderr = os.Stderr
	}
	var h slog.Handler
	switch s.LogFormat {
	case "text":
		h = slog.NewTextHandler(stderr, nil)
	case "json":
		h = slog.NewJSONHandler(stderr, &slog.HandlerOptions{ReplaceAttr: readable})
	default:
		return nil, settingf("--log-format", "%q: it is text or json%s", s.LogFormat, suggest(s.LogFormat, []string{"text", "json"}))
	}
	logger := slog.New(h)
	slog.SetDefault(logger)
	return logger, nil
}

// readable has the JSON handler write what a person reads in the text handler's lines: 1.6s and RFC 3339,
// where it would write durations and instants as their nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case stream.Instant:
			a.Value = slog.StringValue(v.String())
		case stream.Position:
			a.Value = slog.StringValue(v.String())
		}
	}
	return a
}
