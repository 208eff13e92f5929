package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/stream"
)

// StoreSettings are what commands on saved state need.
type StoreSettings struct {
	Checkpoint string
	Name       string
	Lease      time.Duration

	flags *pflag.FlagSet
}

// Register adds the flags of s to a flag set, with their defaults.
func (s *StoreSettings) Register(f *pflag.FlagSet) {
	s.flags = f
	f.StringVar(&s.Checkpoint, "checkpoint", "./millstream-state", "where state lives: PATH, file:///DIR, s3://, gs://, azblob://")
	f.StringVar(&s.Name, "name", "", `name of the pipeline (default "main"; required with a bucket)`)
	f.DurationVar(&s.Lease, "lease", 15*time.Second, "how long an instance may be silent before it counts as gone")
}

// Load completes the settings from the environment. Variables for other commands' flags are not
// complained about: one environment serves them all.
func (s *StoreSettings) Load() error {
	full := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&QuerySettings{}).Register(full)
	if err := LoadEnv(full, os.Environ()); err != nil {
		return err
	}
	full.VisitAll(func(g *pflag.Flag) {
		if mine := s.flags.Lookup(g.Name); mine != nil && g.Changed && !mine.Changed {
			_ = s.flags.Set(g.Name, g.Value.String()) // parsed a moment ago
		}
	})
	common := Settings{Checkpoint: s.Checkpoint, Name: s.Name, CheckpointEvery: 1, IdleAfter: 1, Lease: s.Lease, Keep: 1, Late: "drop"}
	if err := common.Resolve(); err != nil {
		return err
	}
	s.Name = common.Name
	return nil
}

// Open opens the saved state; done closes it. A local folder must be there already.
func (s *StoreSettings) Open(ctx context.Context) (store *checkpoint.Store, done func(), err error) {
	if isLocal(s.Checkpoint) {
		l, err := parseLocation("--checkpoint", s.Checkpoint)
		if err != nil {
			return nil, nil, err
		}
		if _, err := os.Stat(l.rest); err != nil {
			return nil, nil, settingf("--checkpoint", "%v", err)
		}
	}
	b, err := openBucket(ctx, "--checkpoint", s.Checkpoint)
	if err != nil {
		return nil, nil, err
	}
	store, err = checkpoint.Open(ctx, checkpoint.Config{Bucket: b, Name: s.Name, Lease: s.Lease})
	if err != nil {
		b.Close()
		return nil, nil, err
	}
	return store, func() { b.Close() }, nil
}

// PrintEntry prints an entry for people and programs: as JSON, with times as times.
func PrintEntry(out io.Writer, e *stream.Entry) error {
	data, err := json.MarshalIndent(struct {
		Number        uint64 `json:"number"`
		Watermark     string `json:"watermark,omitempty"`
		LastWatermark string `json:"last_watermark,omitempty"`
		*stream.Entry
	}{e.Number, watermark(e), lastWatermark(e), e}, "", "  ")
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Number, err)
	}
	_, err = fmt.Fprintln(out, string(data))
	return err
}

// watermark is empty for the kinds of entries that carry none.
func watermark(e *stream.Entry) string {
	if e.Kind == stream.KindCheckpoint || e.Kind == stream.KindEnd {
		return e.Watermark.String()
	}
	return ""
}

func lastWatermark(e *stream.Entry) string {
	if e.Kind == stream.KindEnd {
		return e.LastWatermark.String()
	}
	return ""
}
