package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// demo runs the main job with nothing installed: an embedded Kinesis on loopback, a clickstream, and
// this very program as the worker, killed once on the way.
type demo struct {
	source   string
	duration time.Duration
	dir      string
	view     *view
	args     []string // of the worker
	http     string

	mu     sync.Mutex
	worker *exec.Cmd
	stderr bytes.Buffer // of the newest worker
}

func demoCommand() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the main job against an embedded Kinesis, kill it on the way, and check its totals",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&d.source, "source", "kinesis", "what the worker reads: kinesis; pubsub; or eventhubs, which needs node 18 or later")
	cmd.Flags().DurationVar(&d.duration, "for", 20*time.Second, "how long to run")
	cmd.Flags().StringVar(&d.dir, "dir", "", "folder for state, results and the worker's log (default: a fresh temporary one)")
	return cmd
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.duration < 6*time.Second {
		return &service.SettingError{Setting: "--for", Problem: "give the demo 6s at least: it kills its worker and waits for the lease"}
	}
	source, err := startDemoSource(ctx, d.source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "millstream-demo-"); err != nil {
			return err
		}
	} else if entries, err := os.ReadDir(d.dir); err == nil && len(entries) > 0 {
		return &service.SettingError{Setting: "--dir", Problem: d.dir + " is not empty: name a new folder"}
	} else if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return &service.SettingError{Setting: "--dir", Problem: err.Error()}
	}
	if d.http, err = freeAddress(); err != nil {
		return err
	}
	users := filepath.Join(d.dir, "users.csv")
	if err := writeUsers(users); err != nil {
		return err
	}
	until := time.Now().Add(d.duration).Truncate(demoWindow).UTC()
	d.args = []string{"run",
		"--source", source.url,
		"--enrich", "account=" + users + "?key=user&on=user",
		"--where", `type == "view"`, "--select", `*, account.tier ?? "guest" as tier`, "--key", "page,tier", "--time", "at",
		"--window", "tumbling:" + demoWindow.String(),
		"--aggregate", "count() as views, sum(ms) as total_ms, min(ms) as fastest, max(ms) as slowest",
		"--out-of-order", source.bound().String(), "--until", until.Format(time.RFC3339),
		"--sink", filepath.Join(d.dir, "rows"), "--dead-letter", filepath.Join(d.dir, "dead-letter"),
		"--checkpoint", filepath.Join(d.dir, "state"), "--checkpoint-every", "1s", "--lease", "2s",
		"--name", "demo", "--http", d.http, "--log-format", "json",
	}
	d.view = newView(os.Stdout, filepath.Join(d.dir, "rows"), source.partition)
	d.view.say("%s with %d partitions takes %d clicks a second; some disordered, late or broken.\n%sThe worker is this program:\n\n  millstream %s\n",
		source.name, demoPartitions, source.rate, source.note, shellWords(d.args))

	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	fed := make(chan error, 1)
	go func() { fed <- newClicks(source).feed(feeding) }()

	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	watched := make(chan struct{})
	err = d.work(ctx, func() {
		go func() { defer close(watched); d.view.watch(watching, func() string { return d.http }) }()
	})
	stopWatching()
	<-watched
	stopFeeding()
	if feedErr := <-fed; err == nil {
		err = feedErr
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped before the end: nothing was compared; rows, state and the worker's log: %s", d.dir)
	}
	if err != nil {
		return err
	}
	return d.judge(source, until)
}

// work runs the worker, kills it once, and runs it again until it has finished.
func (d *demo) work(ctx context.Context, started func()) error {
	kill := time.NewTimer(d.duration * 2 / 5)
	defer kill.Stop()
	exited, err := d.start(ctx)
	started()
	if err != nil {
		return err
	}
	deadline := time.NewTimer(d.duration + 90*time.Second)
	defer deadline.Stop()
	for killed := (time.Time{}); ; {
		select {
		case <-kill.C:
			killed = time.Now()
			d.view.say("%s  kill -9 %d: the worker gets no warning", time.Now().Format(time.TimeOnly), d.worker.Process.Pid)
			if err := d.worker.Process.Kill(); err != nil {
				return fmt.Errorf("kill the worker: %w", err)
			}
		case err := <-exited:
			if err == nil {
				return nil
			}
			if killed.IsZero() {
				return fmt.Errorf("the worker failed: %w\n%s", err, d.tail())
			}
			if exited, err = d.start(ctx); err != nil {
				return err
			}
			d.view.succeed(killed)
			killed = time.Time{}
			d.view.say("%s  a new worker, process %d: it takes over when the old lease has run out", time.Now().Format(time.TimeOnly), d.worker.Process.Pid)
		case <-deadline.C:
			_ = d.worker.Process.Kill()
			return fmt.Errorf("the worker did not finish in time\n%s", d.tail())
		case <-ctx.Done():
			_ = d.worker.Process.Kill()
			return ctx.Err()
		}
	}
}

// start starts a worker. The channel yields how it exited.
func (d *demo) start(ctx context.Context) (<-chan error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	log, err := os.OpenFile(filepath.Join(d.dir, "worker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	d.stderr.Reset()
	cmd := exec.CommandContext(ctx, self, d.args...)
	cmd.Stderr = &teeLog{log: log, keep: &d.stderr, mu: &d.mu}
	cmd.Env = workerEnv()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	d.worker = cmd
	exited := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		log.Close()
		exited <- err
	}()
	return exited, nil
}

// workerEnv is our environment without settings of Millstream: the worker is told everything by flags.
func workerEnv() (env []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, service.EnvPrefix) {
			env = append(env, kv)
		}
	}
	return env
}

// teeLog writes the worker's stderr to its log file and keeps it for the ledger.
type teeLog struct {
	log  *os.File
	keep *bytes.Buffer
	mu   *sync.Mutex
}

func (t *teeLog) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.keep.Write(p)
	t.mu.Unlock()
	return t.log.Write(p)
}

// tail is the end of what the worker said.
func (d *demo) tail() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(d.stderr.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// judge prints the ledger and compares the rows with the exact answer.
func (d *demo) judge(source *demoSource, until time.Time) error {
	last := d.tail()
	last = last[strings.LastIndexByte(last, '\n')+1:]
	var ledger stream.Ledger
	if err := json.Unmarshal([]byte(last), &ledger); err != nil {
		return fmt.Errorf("the worker's last line is not a ledger: %s", last)
	}
	want, err := exactAnswer(source, until)
	if err != nil {
		return err
	}
	rows, problem := compare(filepath.Join(d.dir, "rows"), want)
	d.view.say("\nledger: %d records in = %d contributed + %d filtered + %d late + %d dead-lettered;  %d rows out",
		ledger.RecordsIn, ledger.Contributed, ledger.Filtered, ledger.Late, ledger.DeadLettered, ledger.RowsOut)
	if problem == nil && ledger.Imbalance() != 0 {
		problem = fmt.Errorf("the ledger is off by %d", ledger.Imbalance())
	}
	if problem != nil {
		d.view.say("equals the exact answer: no\nkept for a look: %s", d.dir)
		return problem
	}
	d.view.say("equals the exact answer: yes   (%d rows, computed apart from the same stream)", rows)
	d.view.say("rows, dead letters, state and the worker's log: %s", d.dir)
	return nil
}

// freeAddress finds a port for the worker's status page.
func freeAddress() (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// shellWords quotes arguments so that the line can be pasted into a shell.
func shellWords(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			if strings.HasPrefix(a, "--") {
				b.WriteString(" \\\n    ")
			} else {
				b.WriteByte(' ')
			}
		}
		if a == "" || strings.ContainsAny(a, " \t\"'()|&;<>*?$`\\=!#~{}[]") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}
