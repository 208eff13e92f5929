package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// asMillstream makes the test binary be the command: the promises are about processes, so the tests
// start, kill, freeze and wake real ones.
const asMillstream = service.EnvPrefix + "TEST_AS_MILLSTREAM"

func TestMain(m *testing.M) {
	if os.Getenv(asMillstream) != "" {
		main()
		return
	}
	// The processes wait for each other's leases far more than they compute.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set("8") // a number is always accepted
	}
	os.Exit(m.Run())
}

// patience bounds every wait for a process, so that a hanging one fails its test and not the run.
const patience = 90 * time.Second

// process is a running millstream. Its test kills it in the end, whatever happens.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout output
	stderr output
	exited chan struct{} // closed when it has
	peak   atomic.Int64  // of resident memory in KB, see watchMemory
}

// launch says how to start a process; the zero value is the common case.
type launch struct {
	dir   string   // working directory; default: a fresh one
	env   []string // MILLSTREAM_ and other variables
	stdin *os.File
	wrap  []string // command line before our own

	memory bool // watch how much it takes
}

// environment is the test's own without what could configure a pipeline, a cloud or a container.
func environment(extra []string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, service.EnvPrefix) || strings.HasPrefix(name, "AWS_") || name == "KUBERNETES_SERVICE_HOST" ||
			name == "ECS_CONTAINER_METADATA_URI_V4" || strings.HasPrefix(name, "GO") && name != "GOCOVERDIR" {
			continue
		}
		env = append(env, kv)
	}
	env = append(env, asMillstream+"=1", "MILLSTREAM_HTTP=", // no port: many run at once
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	return append(env, extra...)
}

func (l launch) start(t *testing.T, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if l.dir == "" {
		l.dir = t.TempDir()
	}
	line := append(append(l.wrap, self), args...)
	p := &process{t: t, cmd: exec.Command(line[0], line[1:]...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = l.dir, environment(l.env)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if l.stdin != nil {
		p.cmd.Stdin = l.stdin
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state says it all
		close(p.exited)
	}()
	if l.memory {
		go p.watchMemory()
	}
	t.Cleanup(func() { p.kill() })
	return p
}

func start(t *testing.T, args ...string) *process { t.Helper(); return launch{}.start(t, args...) }

// watchMemory follows the high-water mark of the process's own memory until it ends. What wait(2) says
// in the end counts the memory that it shared with this test until it became another program.
func (p *process) watchMemory() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-tick.C:
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			continue // it ended just now, or the system has no such file
		}
		_, after, _ := strings.Cut(string(status), "VmHWM:")
		var kilobytes int64
		if n, _ := fmt.Sscan(after, &kilobytes); n == 1 {
			p.peak.Store(kilobytes)
		}
	}
}

// kill is SIGKILL. It returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.exited
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v\n%s", s, err, p.stderr.String())
	}
}

// wait waits for the end and returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-p.exited:
	case <-timeout.C:
		p.t.Fatalf("still running after %s\n%s", patience, p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// succeeds waits for the end, which must be exit code 0.
func (p *process) succeeds() *process {
	p.t.Helper()
	if code := p.wait(); code != 0 {
		p.t.Fatalf("exit code %d\n%s", code, p.stderr.String())
	}
	return p
}

// fails waits for the end, which must be that exit code after one line that contains all the texts.
func (p *process) fails(code int, texts ...string) {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
	said := strings.TrimSuffix(p.stderr.String(), "\n")
	if strings.Contains(said, "\n") || !strings.HasPrefix(said, "millstream: ") {
		p.t.Errorf("want one line that starts with millstream:, got\n%s", said)
	}
	p.says(said, texts...)
}

func (p *process) says(said string, texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			p.t.Errorf("does not say %q:\n%s", text, said)
		}
	}
}

// reports waits until the process has written the text to stderr.
func (p *process) reports(text string) {
	p.t.Helper()
	p.reaches(text, func() bool { return strings.Contains(p.stderr.String(), text) })
}

// reaches waits until done, which looks at what the process does from outside.
func (p *process) reaches(what string, done func() bool) {
	p.t.Helper()
	if !p.tries(done) {
		p.t.Fatalf("process ended or hangs before: %s\n%s", what, p.stderr.String())
	}
}

// tries polls until done, or the process has ended without.
func (p *process) tries(done func() bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-p.exited:
			return done()
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// ledger is the last line of stderr; the process ran with --log-format json.
func (p *process) ledger() stream.Ledger {
	p.t.Helper()
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	var l struct {
		Msg string `json:"msg"`
		stream.Ledger
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &l); err != nil || l.Msg != "ledger" {
		p.t.Fatalf("the last line is not a ledger (%v):\n%s", err, p.stderr.String())
	}
	if l.Imbalance() != 0 {
		p.t.Errorf("the ledger is off by %d: %+v", l.Imbalance(), l.Ledger)
	}
	return l.Ledger
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// outputs lists the files of a sink's folder that a reader would take for output.
func outputs(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); name[0] != '_' && name[0] != '.' {
			if !strings.HasSuffix(name, ".ndjson") {
				t.Errorf("%s is neither output nor named so that readers ignore it", name)
			}
			names = append(names, filepath.Join(dir, name))
		}
	}
	return names
}

// lines reads every line of a sink's folder as a T.
func lines[T any](t *testing.T, dir string) []T {
	t.Helper()
	var all []T
	for _, name := range outputs(t, dir) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 || data[len(data)-1] != '\n' {
			t.Errorf("%s is empty or half a file", name)
		}
		all = append(all, parse[T](t, string(data))...)
	}
	return all
}

func parse[T any](t *testing.T, text string) []T {
	t.Helper()
	var all []T
	for line := range strings.Lines(text) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// write makes a file and returns its path.
func write(t *testing.T, path string, lines ...string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func addTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprint(f, text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
