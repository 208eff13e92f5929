package service_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/millstream/millstream"

// arrows says which of our packages a package may import, by folder; the longest match counts. "…/"
// after a folder means everything below it too. Programs wire, and may import anything.
var arrows = map[string][]string{
	"stream":     {},
	"consumers":  {"stream"},
	"consumers/": {"consumers", "stream", "bucket", "cloud/"},
	// Lease tables and checkpoint stores of other programs hold positions of a source.
	"consumers/kinesis/kcl":         {"consumers/kinesis", "stream", "cloud/"},
	"consumers/eventhubs/blobstore": {"stream", "bucket"},

	"enrich":            {"stream", "cloud/retry"},
	"enrich/":           {"enrich", "stream", "bucket", "cloud/"},
	"windows":           {"stream"},
	"checkpoint":        {"stream", "bucket"},
	"sinks":             {"stream", "cloud/retry"},
	"sinks/":            {"sinks", "stream", "bucket", "cloud/"},
	"query":             {"stream", "windows", "query/"},
	"query/fields":      {},
	"bucket":            {},
	"cloud/":            {},
	"cloud/secret":      {"cloud/aws", "cloud/gcp", "cloud/azure"}, // one switch over what each cloud reads
	"fakes/":            {"fakes/fault"},
	"service":           nil,
	"cmd/":              nil,
	"examples/":         nil,
	"bench":             nil,
	"bench/":            nil,
	"stream/streamtest": nil, // wires a whole pipeline for users' tests
	// Conformance suites wire what they test.
	"bucket/buckettest":         {"bucket"},
	"checkpoint/checkpointtest": {"checkpoint", "stream", "bucket", "bucket/buckettest"},
	"consumers/consumertest":    {"consumers", "stream", "bucket", "checkpoint"},
}

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"/...")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &errs)
	}
	var ps []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// allowed looks up what a folder may import; ok is false for a folder that no rule knows.
func allowed(folder string) (targets []string, any, ok bool) {
	for rule := folder; ; {
		if targets, found := arrows[rule]; found {
			return targets, targets == nil, true
		}
		i := strings.LastIndexByte(strings.TrimSuffix(rule, "/"), '/')
		if i < 0 {
			return nil, false, false
		}
		rule = rule[:i+1]
	}
}

func broken(from, to string) string {
	targets, any, ok := allowed(from)
	switch {
	case !ok:
		return from + ": no rule says where this folder stands"
	case any:
		return ""
	}
	for _, target := range targets {
		if to == target || strings.HasSuffix(target, "/") && strings.HasPrefix(to, target) {
			return ""
		}
	}
	return from + " must not import " + to
}

// TestArrows holds the house to the arrows between its rooms.
func TestArrows(t *testing.T) {
	for _, p := range list(t) {
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if from == "" {
			t.Error("no Go file stands at the root")
			continue
		}
		if _, _, ok := allowed(from); !ok {
			t.Error(broken(from, ""))
		}
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module+"/"); ours {
				if msg := broken(from, to); msg != "" {
					t.Error(msg)
				}
			} else if from == "stream" && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !strings.HasPrefix(imp, "github.com/ThreeDotsLabs/watermill/") {
				t.Errorf("stream must not import %s", imp)
			}
		}
	}
}

// TestArrowsNegative shows that the rules can fail.
func TestArrowsNegative(t *testing.T) {
	for _, bad := range [][2]string{{"stream", "windows"}, {"windows", "query"}, {"consumers/file", "checkpoint"}, {"bucket", "stream"}, {"cloud/secret", "bucket"}, {"cloud/aws", "cloud/secret"}, {"utils", "stream"}} {
		if broken(bad[0], bad[1]) == "" {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
	for _, good := range [][2]string{{"consumers/file", "consumers"}, {"query", "windows"}, {"cmd/millstream", "service"}} {
		if msg := broken(good[0], good[1]); msg != "" {
			t.Error(msg)
		}
	}
}

// TestFilesAreShort keeps every file readable to its end.
func TestFilesAreShort(t *testing.T) {
	const most = 600
	for _, p := range list(t) {
		for _, name := range p.GoFiles {
			data, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(data, []byte("\n")); n > most && !bytes.HasPrefix(data, []byte("// Code generated")) {
				t.Errorf("%s/%s has %d lines, more than %d", p.ImportPath, name, n, most)
			}
		}
	}
}
