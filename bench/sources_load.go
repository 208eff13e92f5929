package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// sourceLoad is what a source serves: the same events wherever they are made.
type sourceLoad struct {
	Source     string
	Events     int
	Partitions int
}

// numberDigits is how many digits of an event's padding are its number.
const numberDigits = 8

// generate makes the events. Each ends with its number, and all views count: nothing is late.
func (l sourceLoad) generate() *ysbEvents {
	e := generateYSB(l.Events, 1000, l.Partitions, 24*time.Hour.Milliseconds(), 3)
	number := 0
	for _, records := range e.partitions {
		for _, r := range records {
			end := len(r.Data) - len(`"}`)
			copy(r.Data[end-numberDigits:end], fmt.Sprintf("%0*d", numberDigits, number))
			number++
		}
	}
	return e
}

// serverVariable hands a sourceLoad to the process that serves it.
const serverVariable = "BENCH_SOURCE_LOAD"

// sourceServer is a process of our own that serves a source: this program again.
type sourceServer struct {
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	endpoint string

	asking sync.Mutex
	stdout *bufio.Reader
}

// startServer starts the process and returns when everything is there to be read. It ends with close, or
// with this process.
func startServer(ctx context.Context, load sourceLoad) (*sourceServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	plan, err := json.Marshal(load)
	if err != nil {
		return nil, err
	}
	s := &sourceServer{cmd: exec.CommandContext(ctx, self)}
	s.cmd.Env = append(os.Environ(), serverVariable+"="+string(plan))
	s.cmd.Stderr = os.Stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdout = bufio.NewReader(stdout)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if s.endpoint, err = s.line(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// ask has the server do something, and returns when it is done.
func (s *sourceServer) ask(what string) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	if _, err := fmt.Fprintln(s.stdin, what); err != nil {
		return err
	}
	answer, err := s.line()
	if err == nil && answer != "done" {
		err = fmt.Errorf("%s: %s", what, answer)
	}
	return err
}

func (s *sourceServer) line() (string, error) {
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the server has ended: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// close ends the process. One that still waits for what it was asked last does not see that its input has
// ended, and is killed.
func (s *sourceServer) close() error {
	s.stdin.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	return nil
}

// serveSource is the process that startServer starts. It does what its standard input says, until that ends.
func serveSource(plan string) error {
	var load sourceLoad
	if err := json.Unmarshal([]byte(plan), &load); err != nil {
		return err
	}
	serve := map[string]func(sourceLoad) (string, func(string) error, error){"kinesis": serveKinesis, "pubsub": servePubSub}[load.Source]
	endpoint, do, err := serve(load)
	if err != nil {
		return err
	}
	fmt.Println(endpoint)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := do(lines.Text()); err != nil {
			fmt.Println(strings.Join(strings.Fields(err.Error()), " "))
			continue
		}
		fmt.Println("done")
	}
	return nil
}

// eachOf calls f for 0 to n-1, all at once. The first error ends the others' context.
func eachOf(ctx context.Context, n int, f func(context.Context, int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := f(ctx, i); err != nil {
				stop(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}
