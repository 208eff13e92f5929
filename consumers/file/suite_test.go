package file

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
)

func TestSuite(t *testing.T) {
	consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
		dir := t.TempDir()
		for _, name := range []string{"a.ndjson", "b.ndjson"} {
			write(t, filepath.Join(dir, name), "")
		}
		make := func(untilEnd bool) (consumers.Source, error) { return New(Options{Path: dir, UntilEnd: untilEnd}) }
		s, err := make(false)
		if err != nil {
			t.Fatal(err)
		}
		return &consumertest.Stream{
			Source: s,
			Publish: func(partition string, data ...[]byte) error {
				f, err := os.OpenFile(filepath.Join(dir, partition), os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.Write(append(bytes.Join(data, []byte("\n")), '\n'))
				return err
			},
			Again:   func() (consumers.Source, error) { return make(false) },
			Bounded: func() (consumers.Source, error) { return make(true) },
			Missing: "c.ndjson",
			Largest: MaxRecord,
		}
	})
}
