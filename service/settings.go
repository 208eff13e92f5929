package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/aws/smithy-go"
	"github.com/spf13/pflag"

	"github.com/millstream/millstream/consumers"
)

// EnvPrefix starts the name of every environment variable: --checkpoint-every is
// MILLSTREAM_CHECKPOINT_EVERY.
const EnvPrefix = "MILLSTREAM_"

// envImage is set in our container image, see inContainer.
const envImage = EnvPrefix + "IMAGE"

// envReserved starts the names that are no settings: the project's own tests use them, fakes/eventhubs, and our image.
var envReserved = []string{EnvPrefix + "TEST_", EnvPrefix + "INTEGRATION", EnvPrefix + "RHEA", envImage}

// Settings are what every program on Millstream can be told from outside, by flags and environment.
type Settings struct {
	Source          string
	Sinks           []string
	DeadLetter      string
	Checkpoint      string
	Name            string
	CheckpointEvery time.Duration
	Lease           time.Duration
	Keep            int
	DedupeFor       time.Duration
	OutOfOrder      time.Duration
	IdleAfter       time.Duration
	Late            string
	From            string
	Until           string
	UntilEnd        bool
	HTTP            string
	LogFormat       string

	// Driver is read instead of Source: a source of the program's own.
	Driver consumers.Source

	flags   *pflag.FlagSet
	columns []string // of a row, where they are all known
}

// SettingError is a setting that does not work. It ends a program with exit code 2, or 1 when nothing is
// wrong with the setting itself.
type SettingError struct {
	Setting string // "--window"
	Problem string // with the fix
	Passing bool   // what it names cannot be reached, is full, or is refused for a reason that passes
}

// Error quotes URLs without the secrets that somebody wrote into them.
func (e *SettingError) Error() string { return e.Setting + ": " + Redact(e.Problem) }

func settingf(setting, format string, args ...any) error {
	return &SettingError{Setting: setting, Problem: fmt.Sprintf(format, args...)}
}

// unusable says that what a setting names does not work, because of err: the last of args.
func unusable(setting string, err error, format string, args ...any) error {
	return &SettingError{setting, fmt.Sprintf(format, append(args, err)...), passing(err)}
}

// passing tells what may work later with the same settings.
func passing(err error) bool {
	var network net.Error
	var temporary interface{ Temporary() bool }
	var answer smithy.APIError
	switch {
	case errors.As(err, &answer):
		return strings.HasPrefix(answer.ErrorCode(), "Expired") || strings.Contains(answer.ErrorCode(), "Throttl") || answer.ErrorFault() == smithy.FaultServer
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return false // to the library they are a network's errors too
	case errors.As(err, &temporary) && temporary.Temporary():
		return true
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return true
	}
	for _, may := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO, syscall.ECONNREFUSED, syscall.ECONNRESET, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, may) {
			return true
		}
	}
	return false
}

// Register adds the flags of s to a flag set, with their defaults.
func (s *Settings) Register(f *pflag.FlagSet) {
	s.flags = f
	f.StringVar(&s.Source, "source", "", "where records come from: PATH, file:///DIR?rate=N, s3://BUCKET/PREFIX, gs://, azblob:// or a folder with ?format=ndjson|json|csv|auto&compression=auto&watch=30s&lanes=8, stdin:, kinesis://STREAM-OR-ARN?region=&endpoint=&start=&consumer=&client=, eventhubs://NAMESPACE/HUB?consumer-group=&start=&endpoint=")
	f.StringArrayVar(&s.Sinks, "sink", nil, "where rows go (repeatable): PATH, file:///DIR, s3://, gs://, azblob:// (with ?format=ndjson|csv|parquet&compression=&path=&schema=&roll=&roll-size=), stdout:, firehose://STREAM?region=&pack=, bigquery://PROJECT/DATASET/TABLE?write=&unknown=&endpoint=, kinesis://STREAM?region=&aggregate=&partition-key=, pubsub://PROJECT/TOPIC?endpoint=&ordering=, eventhubs://NAMESPACE/HUB?endpoint=")
	f.StringVar(&s.DeadLetter, "dead-letter", "", "where unusable records go, as --sink (default: dead-letter/ in the pipeline's folder)")
	f.StringVar(&s.Checkpoint, "checkpoint", "./millstream-state", "where state lives: PATH, file:///DIR, s3://, gs://, azblob://, mem:")
	f.StringVar(&s.Name, "name", "", `name of the pipeline, and of its state (default "main"; required with a bucket)`)
	f.DurationVar(&s.CheckpointEvery, "checkpoint-every", 10*time.Second, "time between checkpoints")
	f.DurationVar(&s.Lease, "lease", 15*time.Second, "how long an instance may be silent before another takes its partitions over")
	f.IntVar(&s.Keep, "keep", 10, "checkpoints kept besides the newest")
	f.DurationVar(&s.DedupeFor, "dedupe-for", 10*time.Minute, "how long message ids are remembered, for sources that deliver twice")
	f.DurationVar(&s.OutOfOrder, "out-of-order", 0, "how much a record may be late (default by source: 5s streams, 0s files; nothing is late with --until-end)")
	f.DurationVar(&s.IdleAfter, "idle-after", time.Minute, "a partition with nothing new for so long no longer holds windows back")
	f.StringVar(&s.Late, "late", "dead-letter", "what becomes of late records: dead-letter or drop")
	f.StringVar(&s.From, "from", "", "ignore records with an earlier event time (RFC 3339)")
	f.StringVar(&s.Until, "until", "", "ignore records from this event time on, and exit once everything before is committed")
	f.BoolVar(&s.UntilEnd, "until-end", false, "read to the end of the source, close every window, exit")
	f.StringVar(&s.HTTP, "http", "127.0.0.1:8080", "address for health and status")
	f.StringVar(&s.LogFormat, "log-format", "text", "text or json")
}

// LoadEnv fills in the flags that the command line does not set from the environment, and refuses
// variables with our prefix that name no flag. Call it after parsing.
func LoadEnv(f *pflag.FlagSet, environ []string) error {
	known := map[string]*pflag.Flag{}
	f.VisitAll(func(g *pflag.Flag) { known[EnvName(g.Name)] = g })
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix) || slices.ContainsFunc(envReserved, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		g, ok := known[name]
		if !ok {
			return settingf(name, "no such setting%s", suggest(name, keys(known)))
		}
		if g.Changed {
			continue
		}
		values := []string{value}
		if g.Value.Type() == "stringArray" {
			values = slices.DeleteFunc(strings.Split(value, "\n"), func(s string) bool { return strings.TrimSpace(s) == "" })
		}
		for _, v := range values {
			if err := f.Set(g.Name, v); err != nil {
				return settingf(name, "%s", flagProblem(err))
			}
		}
		if g.Annotations == nil {
			g.Annotations = map[string][]string{}
		}
		g.Annotations[originKey] = []string{name}
	}
	return nil
}

const originKey = "origin"

// Origin says where a flag's value comes from: flag, an environment variable's name, or default.
func Origin(g *pflag.Flag) string {
	switch {
	case len(g.Annotations[originKey]) > 0:
		return g.Annotations[originKey][0]
	case g.Changed:
		return "flag"
	}
	return "default"
}

// EnvName is the environment variable of a flag.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FlagError turns a parsing error into one line that names the setting and the nearest known one.
func FlagError(f *pflag.FlagSet, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		f.VisitAll(func(g *pflag.Flag) { names = append(names, "--"+g.Name) })
		name := "--" + strings.TrimLeft(unknown.GetSpecifiedName(), "-")
		return settingf(name, "no such flag%s", suggest(name, names))
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return settingf("--"+invalid.GetFlag().Name, "%s", flagProblem(invalid))
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		return settingf("--"+missing.GetFlag().Name, "needs a value")
	}
	return settingf("command line", "%s", err)
}

// flagProblem drops the parser's own preamble from an error about a value.
func flagProblem(err error) string {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if invalid.GetFlag().Value.Type() == "duration" {
			return fmt.Sprintf("%q is not a duration: write it like 500ms, 10s or 1m30s", invalid.GetValue())
		}
		return fmt.Sprintf("%q is not valid: %v", invalid.GetValue(), errors.Unwrap(invalid))
	}
	return err.Error()
}

func keys(m map[string]*pflag.Flag) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

// suggest words "did you mean" for the nearest candidate, if one is near.
func suggest(name string, candidates []string) string {
	slices.Sort(candidates)
	best, distance := "", 4
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(name, c); d < distance && d < len(name)/2 {
			best, distance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// set reports whether the user gave the flag, by flag or by environment.
func (s *Settings) set(flag string) bool { return s.flags != nil && s.flags.Changed(flag) }

// inContainer reports whether the local disk is likely to vanish with this process.
func inContainer() bool {
	return os.Getenv("KUBERNETES_SERVICE_HOST") != "" || os.Getenv("ECS_CONTAINER_METADATA_URI_V4") != "" || os.Getenv(envImage) != ""
}
