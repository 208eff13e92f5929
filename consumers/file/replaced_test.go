package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
)

// A file that took the place of the one that was read is noticed also when a line of it happens to begin
// at the saved byte, as it does where all lines are equally long.
func TestReplacedByLinesOfTheSameLength(t *testing.T) {
	for _, end := range []string{"", "\n", "\r\n"} {
		path := write(t, filepath.Join(t.TempDir(), "f"), "one 1\none 2"+end+"\n")
		r := open(t, Options{Path: path}, "f", 0)
		f, err := r.Read(t.Context())
		if err != nil || len(f.Records) != 2 {
			t.Fatal(len(f.Records), err)
		}
		s, err := New(Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		reopen := func(from stream.Position) error {
			r, err := s.Open(t.Context(), "f", from, "")
			if err == nil {
				err = r.Close()
			}
			return err
		}
		write(t, path, "one 1\none 2"+end+"\none 3\n")
		if err := reopen(f.Next); err != nil {
			t.Errorf("a file that grew: %v", err)
		}
		write(t, path, "two 1\ntwo 2"+end+"\ntwo 3\n")
		if err := reopen(f.Next); err == nil || !strings.Contains(err.Error(), "are not those that were read") {
			t.Errorf("another file: %v", err)
		}
		if err := reopen(stream.Position{Number: f.Next.Number}); err != nil {
			t.Errorf("a position without a mark: %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
