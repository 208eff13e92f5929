package service

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	firehosesink "github.com/millstream/millstream/sinks/firehose"
)

// openFirehoseSink opens firehose://STREAM?region=&endpoint=&pack=500KiB|off as a sink or a dead letter.
func openFirehoseSink(ctx context.Context, l location, logger *slog.Logger) (openedSink, error) {
	if err := l.only("region", "endpoint", "pack"); err != nil {
		return openedSink{}, err
	}
	o := firehosesink.Options{Stream: l.rest, Region: l.params.Get("region"), Endpoint: l.params.Get("endpoint"), Logger: logger}
	switch pack := l.params.Get("pack"); pack {
	case "":
	case "off":
		o.Pack = firehosesink.Off
	default:
		n, err := parseSize(pack)
		if err != nil || n < 1 || n > 1000<<10 {
			return openedSink{}, settingf(l.setting, "%s: pack=%s: want a size up to 1000KiB, such as 500KiB, or off", l.raw, pack)
		}
		o.Pack = int(n)
	}
	sink, err := firehosesink.New(ctx, o)
	if err != nil {
		return openedSink{}, unusable(l.setting, err, "%v")
	}
	return openedSink{sink, nil}, nil
}

// parseSize reads a number of bytes: 5000, 5KB, 128MiB.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGTiB")
	unit, known := map[string]int64{"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[text[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > 1<<53/unit {
		return 0, fmt.Errorf("%q is not a size: write it like 500KiB or 128MiB", text)
	}
	return n * unit, nil
}
