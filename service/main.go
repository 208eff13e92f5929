// Package service wires a pipeline to the outside: flags and environment, signals, health, and one
// switch from URLs to drivers. The ready-made program in cmd/millstream is one user of it; a program
// of your own is another:
//
//	func main() { service.Main(&stream.Pipeline[Order, Row]{ … }) }
package service

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/stream"
)

// Main runs a pipeline as a program: it reads flags and MILLSTREAM_ variables, runs until SIGTERM,
// SIGINT or the pipeline's end, prints the ledger as its last line, and exits. It belongs where a
// function said lambda.Start(handler).
func Main[E, R any](p *stream.Pipeline[E, R]) {
	os.Exit(ExitCode(report(mainRun(p, os.Args[1:]))))
}

func mainRun[E, R any](p *stream.Pipeline[E, R], args []string) error {
	s := &Settings{}
	f := pflag.NewFlagSet(os.Args[0], pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	s.Register(f)
	if p.Name != "" {
		name := f.Lookup("name")
		name.DefValue, name.Usage = p.Name, "name of the pipeline, and of its state"
		s.Name = p.Name
	}
	if err := f.Parse(args); err != nil {
		if err == pflag.ErrHelp { //nolint:errorlint // pflag returns the very value
			fmt.Fprintf(os.Stdout, "Usage of %s:\n%s", filepath.Base(os.Args[0]), f.FlagUsages())
			return nil
		}
		return FlagError(f, err)
	}
	if f.NArg() > 0 {
		return settingf("command line", "unexpected argument %q", f.Arg(0))
	}
	if err := LoadEnv(f, os.Environ()); err != nil {
		return err
	}
	ctx, stop := Signals(context.Background())
	defer stop()
	return Run(ctx, p, s, os.Stderr)
}

// Signals returns a context that the first SIGTERM or SIGINT ends, so that everything drains; the
// second one exits the process at once.
func Signals(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGTERM, os.Interrupt)
	go func() {
		select {
		case <-got:
			cancel()
		case <-ctx.Done():
		}
		select {
		case <-got:
			fmt.Fprintln(os.Stderr, "second signal: exiting at once; what was not saved is read again")
			os.Exit(1)
		case <-parent.Done():
		}
	}()
	return ctx, func() { signal.Stop(got); cancel() }
}

// report prints an error as one line.
func report(err error) error {
	if err != nil {
		fmt.Fprintln(os.Stderr, "millstream: "+strings.Join(strings.Fields(err.Error()), " "))
	}
	return err
}

// Exit prints err as one line, if there is one, and ends the process with its exit code.
func Exit(err error) { os.Exit(ExitCode(report(err))) }
