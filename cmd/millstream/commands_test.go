package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "millstream demo"}, {[]string{"--help"}, "millstream demo"}, {[]string{"help"}, "millstream demo"}, {[]string{"run", "--help"}, "--checkpoint-every"},
		{[]string{"run", "-h"}, "--out-of-order"}, {[]string{"demo", "--help"}, "--for"}, {[]string{"check", "--help"}, "--sink"},
		{[]string{"config", "--help"}, "--sink"}, {[]string{"checkpoints", "--help"}, "reset"}, {[]string{"checkpoints", "show", "--help"}, "--lease"},
		{[]string{"version", "--help"}, "version"}, {[]string{"completion", "--help"}, "bash"}, {[]string{"completion", "bash", "--help"}, "bash"},
	} {
		p := start(t, c.args...).succeeds()
		if !strings.Contains(p.stdout.String(), c.want) || p.stderr.String() != "" {
			t.Errorf("%s: stdout %s\nstderr %s", c.args, p.stdout.String(), p.stderr.String())
		}
	}
}

func TestVersionAndCompletion(t *testing.T) {
	t.Parallel()
	if got := start(t, "version").succeeds().stdout.String(); !strings.HasPrefix(got, "millstream ") || strings.Count(got, "\n") != 1 {
		t.Errorf("version says %q", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := start(t, "completion", shell).succeeds().stdout.String(); !strings.Contains(got, "__complete") {
			t.Errorf("%s: no completion script", shell)
		}
	}
	if got := start(t, "__complete", "run", "--checkpoint-").succeeds().stdout.String(); !strings.Contains(got, "--checkpoint-every") {
		t.Errorf("completes --checkpoint- with %s", got)
	}
}

// check tries, prints what these settings promise and need, and leaves nothing behind.
func TestCheck(t *testing.T) {
	t.Parallel()
	_, source := serveKinesis(t, 3)
	for _, c := range []struct {
		name  string
		flags []string
		want  []string
	}{
		{"file to folder", []string{"--source", "in.ndjson", "--sink", "out"}, []string{"readable, 1 partition\n", "8 writers raced for 16 names",
			`pipeline "main" has no state yet`, "exactly once: ", "read and write "}},
		{"Kinesis to Kinesis", []string{"--source", source, "--sink", source}, []string{"readable, 3 partitions\n", "at least once: ", "_id",
			"kinesis:GetRecords", "kinesis:PutRecords, kinesis:DescribeStreamSummary, kinesis:ListShards on stream " + workStream}},
		{"pipe to terminal", []string{"--source", "-", "--sink", "stdout:"}, []string{"at most once after a crash"}},
		{"in memory", []string{"--source", "in.ndjson", "--sink", "out", "--checkpoint", "mem:"}, []string{"exactly once while the process lives"}},
		{"columns", []string{"--source", "in.ndjson", "--sink", "out", "--key", "user.id", "--time", "at", "--window", "tumbling:1m",
			"--aggregate", "count() as n, quantile(ms, 0.99)"}, []string{"window_start, window_end, user_id, n, quantile_ms_0_99"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "in.ndjson"), clicksOfTwo...)
			p := launch{dir: dir}.start(t, append([]string{"check"}, c.flags...)...).succeeds()
			p.says(p.stdout.String(), c.want...)
			for _, folder := range []string{"out", "millstream-state"} {
				if left, _ := filepath.Glob(filepath.Join(dir, folder, "*")); len(left) > 0 {
					t.Errorf("left %s", left)
				}
			}
		})
	}
}

// checkpoints shows what a run has saved; reset starts again, but not under a running pipeline.
func TestCheckpoints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := write(t, filepath.Join(dir, "in.ndjson"), clicksOfTwo...)
	l := launch{dir: dir}
	args := []string{"run", "--source", in, "--time", "at", "--window", "tumbling:1m", "--aggregate", "count() as n", "--sink", "out",
		"--out-of-order", "40s", "--lease", "1s", "--checkpoint-every", "50ms", "--log-format", "json"}
	output := func(args ...string) string {
		t.Helper()
		return l.start(t, append([]string{"checkpoints"}, args...)...).succeeds().stdout.String()
	}
	follow := l.start(t, args...)
	follow.reaches("a row", func() bool { return len(outputs(t, filepath.Join(dir, "out"))) > 0 })
	follow.reaches("the list", func() bool {
		list := output("list")
		return strings.Contains(list, "in.ndjson") && strings.Contains(list, "checkpoint") && strings.Contains(list, "_merger") &&
			strings.Contains(list, "2026-01-01T00:01:") && strings.Contains(list, "windows up to 2026-01-01T00:01:00Z are out")
	})
	l.start(t, "checkpoints", "reset", "--lease", "1s").fails(1, "is running this pipeline: stop it first, then reset")
	follow.signal(os.Interrupt)
	follow.succeeds()

	if shown := output("show", "in.ndjson"); !strings.Contains(shown, `"kind": "release"`) || strings.Contains(shown, "watermark") {
		t.Errorf("shows %s", shown)
	}
	if shown := output("show", "in.ndjson", "2"); !strings.Contains(shown, `"kind": "checkpoint"`) || !strings.Contains(shown, `"watermark": "2026-01-01T00:0`) || !strings.Contains(shown, `"records_in": 6`) {
		t.Errorf("shows %s", shown)
	}
	if shown := output("show", "in.ndjson", "1"); !strings.Contains(shown, `"kind": "claim"`) {
		t.Errorf("shows %s", shown)
	}
	l.start(t, "checkpoints", "show", "nothing").fails(1, "partition nothing has no log")
	l.start(t, "checkpoints", "show", "in.ndjson", "999").fails(1, "no entry 999")
	l.start(t, "checkpoints", "show").fails(2, "checkpoints show: ", "write millstream checkpoints show PARTITION [NUMBER]")
	if list := output("list", "--name", "other"); !strings.Contains(list, `pipeline "other" has no saved state`) {
		t.Errorf("lists %s", list)
	}

	ended := append(slices.Clone(args), "--until-end")
	ledger := l.start(t, ended...).succeeds().ledger()
	if reset := output("reset", "--lease", "1s"); !strings.Contains(reset, "2 logs reset") || !strings.Contains(reset, "again under new names") {
		t.Errorf("reset says %s", reset)
	}
	if again := l.start(t, append(ended, "--sink", "out2")...).succeeds().ledger(); again != ledger {
		t.Errorf("after the reset %+v, before %+v", again, ledger)
	}
	if n := len(lines[map[string]any](t, filepath.Join(dir, "out2"))); n != 2 {
		t.Errorf("%d rows after the reset, want 2", n)
	}
}

// The demo is one of the two commands that a stranger types: it kills itself, and is exact.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Log("left out: the demo takes 15 s")
		return
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "millstream") // the demo starts itself, which a test binary must not
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary, "demo", "--for", "6s", "--dir", filepath.Join(t.TempDir(), "demo"))
	cmd.Env = environment(nil)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, text := range []string{"millstream run", "--lease 2s", "kill -9", "a new worker", "ledger: ", "equals the exact answer: yes"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("does not say %q:\n%s", text, out)
		}
	}
}

// A damaged log stops its partition with its name; nothing is output again, and reset is a way out.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, pattern string
	}{{"newest entry", "*5"}, {"whole log", "*"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in := write(t, filepath.Join(dir, "in.ndjson"), clicksOfTwo...)
			l := launch{dir: dir}
			args := []string{"run", "--source", in, "--time", "at", "--window", "tumbling:1m", "--aggregate", "count() as n",
				"--lease", "1s", "--checkpoint-every", "50ms", "--log-format", "json", "--sink"}
			for range 2 { // entries 1 to 3, then a claim and a release
				p := l.start(t, append(args, "out")...)
				p.reports(`"claimed","partition":"in.ndjson"`)
				p.reaches("a row", func() bool { return len(outputs(t, filepath.Join(dir, "out"))) > 0 })
				p.signal(os.Interrupt)
				p.succeeds()
			}
			rows := len(outputs(t, filepath.Join(dir, "out")))
			entries, err := filepath.Glob(filepath.Join(dir, "millstream-state", "main", "log", "in.ndjson", c.pattern))
			if err != nil || len(entries) == 0 {
				t.Fatal(err, entries)
			}
			slices.Sort(entries)
			for _, name := range entries {
				if data, err := os.ReadFile(name); err != nil || os.WriteFile(name, append(data[:20:20], "damaged"...), 0o644) != nil {
					t.Fatal(name, err)
				}
			}
			newest := filepath.Base(entries[len(entries)-1])
			const problem = " is damaged: checksum does not match; restore it, from the bucket's versions or a backup, or start again with `checkpoints reset` or a new --name"
			l.start(t, "checkpoints", "list").fails(1, "in.ndjson/"+newest+problem)
			p := l.start(t, append(args, "out")...)
			p.reports("in.ndjson/" + newest + problem)
			p.signal(os.Interrupt)
			if code := p.wait(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if n := len(outputs(t, filepath.Join(dir, "out"))); n != rows {
				t.Errorf("%d files were %d before", n, rows)
			}

			l.start(t, "checkpoints", "reset", "--lease", "1s").succeeds()
			if ledger := l.start(t, append(args, "out2", "--until-end")...).succeeds().ledger(); ledger.Contributed != 6 || ledger.RowsOut != 2 {
				t.Errorf("after the reset: %+v", ledger)
			}
			if n := len(lines[map[string]any](t, filepath.Join(dir, "out2"))); n != 2 {
				t.Errorf("%d rows after the reset, want 2", n)
			}
		})
	}
}
