package eventhubs

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed server.js
var program []byte

// Options configures a Server. The zero value is a server on a free port.
type Options struct {
	// Port on 127.0.0.1. Default: any that is free.
	Port int
	// MaxMessageSize is the largest batch, and so the largest event, that a sender may send, in bytes.
	// Default 1 MiB, as the standard tier has it.
	MaxMessageSize int
	// Log receives what the program prints when it fails. Default: os.Stderr.
	Log io.Writer
}

// Server is a running stand-in. Its methods may be called concurrently. A hub, partition or consumer
// group that does not exist is an error.
type Server struct {
	port   int
	cmd    *exec.Cmd
	folder string

	mu      sync.Mutex
	input   io.WriteCloser
	next    int
	waiting map[int]chan<- answer
	ended   error         // why there are no more answers
	done    chan struct{} // closed once the program has ended
	close   sync.Once
}

type answer struct {
	ID     int             `json:"id"`
	Port   int             `json:"port"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
}

// startWithin bounds the start of the program itself.
const startWithin = 20 * time.Second

// Start starts the program and returns when it listens. It ends with Close, and with the process that
// started it. The error is one line when node or rhea is not there and cannot be had; ctx covers the
// start, installing rhea included, not the server's life.
func Start(ctx context.Context, o Options) (*Server, error) {
	node, modules, err := Runtime(ctx)
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(map[string]int{"port": o.Port, "max_message_size": o.MaxMessageSize})
	if err != nil {
		return nil, fmt.Errorf("event hubs stand-in: %w", err)
	}
	folder, err := os.MkdirTemp("", "millstream-eventhubs-")
	if err != nil {
		return nil, fmt.Errorf("event hubs stand-in: %w", err)
	}
	s := &Server{folder: folder, waiting: make(map[int]chan<- answer), done: make(chan struct{})}
	if err := s.start(ctx, node, modules, string(settings), o.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("event hubs stand-in: %w", err), os.RemoveAll(folder))
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, node, modules, settings string, log io.Writer) error {
	script := s.folder + string(os.PathSeparator) + "server.js"
	if err := os.WriteFile(script, program, 0o600); err != nil {
		return err
	}
	s.cmd = exec.Command(node, script)
	s.cmd.Env = append(os.Environ(), "MILLSTREAM_RHEA="+modules, "MILLSTREAM_OPTIONS="+settings)
	if s.cmd.Stderr = log; log == nil {
		s.cmd.Stderr = os.Stderr
	}
	var err error
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	output, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan answer, 1)
	s.waiting[0] = ready
	go s.listen(output)
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	select {
	case a := <-ready:
		s.port = a.Port
		return nil
	case <-s.done:
		return s.ended
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.Close())
	}
}

// listen hands answers to whoever waits for them, until the program ends.
func (s *Server) listen(output io.Reader) {
	lines := bufio.NewReader(output)
	var broken error
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var a answer
		if broken = json.Unmarshal(line, &a); broken != nil {
			broken = fmt.Errorf("an answer that is not JSON: %.100q", line)
			break
		}
		s.mu.Lock()
		to := s.waiting[a.ID]
		delete(s.waiting, a.ID)
		s.mu.Unlock()
		if to != nil {
			to <- a
		}
	}
	if broken != nil {
		_ = s.cmd.Process.Kill() // it may have ended by itself
	}
	err := errors.Join(broken, s.cmd.Wait())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended = errors.New("the program has ended"); err != nil {
		s.ended = fmt.Errorf("the program has ended: %w", err)
	}
	close(s.done)
}

// call sends a control line and decodes the answer into result, which may be nil.
func (s *Server) call(result any, op string, arguments map[string]any) error {
	if arguments == nil {
		arguments = make(map[string]any, 2)
	}
	to := make(chan answer, 1)
	s.mu.Lock()
	s.next++
	id := s.next
	arguments["op"], arguments["id"] = op, id
	line, err := json.Marshal(arguments)
	if err == nil {
		s.waiting[id] = to
		_, err = s.input.Write(append(line, '\n'))
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("event hubs stand-in: %s: %w", op, err)
	}
	select {
	case a := <-to:
		switch {
		case a.Error != "":
			return fmt.Errorf("event hubs stand-in: %s: %s", op, a.Error)
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(a.Result, result); err != nil {
			return fmt.Errorf("event hubs stand-in: %s: %w", op, err)
		}
		return nil
	case <-s.done:
		return fmt.Errorf("event hubs stand-in: %s: %w", op, s.ended)
	}
}

// Endpoint is the server's address, such as "127.0.0.1:5672".
func (s *Server) Endpoint() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// ConnectionString is what the official clients connect with.
func (s *Server) ConnectionString() string {
	return "Endpoint=sb://" + s.Endpoint() + ";SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true"
}

// Close ends the program. It may be called twice.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		s.mu.Lock()
		err = s.input.Close() // at which the program exits
		s.mu.Unlock()
		select {
		case <-s.done:
		case <-time.After(5 * time.Second):
			err = errors.Join(err, s.cmd.Process.Kill())
			<-s.done
		}
		err = errors.Join(err, os.RemoveAll(s.folder))
	})
	return err
}

// Version is the release of rhea that the program is written for.
const Version = "3.0.5"

// installWithin bounds the installation of rhea.
const installWithin = 2 * time.Minute

// Runtime finds what Start needs, node and the node_modules folder that holds rhea, and installs rhea
// when it must. Its error is one line.
func Runtime(ctx context.Context) (node, modules string, err error) {
	if node, err = exec.LookPath("node"); err != nil {
		return "", "", errors.New("event hubs stand-in: needs node 18 or later, which is not in PATH")
	}
	if modules = os.Getenv("MILLSTREAM_RHEA"); modules != "" {
		if !installed(modules) {
			return "", "", fmt.Errorf("event hubs stand-in: MILLSTREAM_RHEA: %s holds no rhea: want a node_modules folder in which npm has installed rhea@%s", modules, Version)
		}
		return node, modules, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("event hubs stand-in: no place to install rhea in: set MILLSTREAM_RHEA to a node_modules folder that holds it: %w", err)
	}
	at := strings.Join([]string{cache, "millstream", "rhea-" + Version}, string(os.PathSeparator))
	modules = at + string(os.PathSeparator) + "node_modules"
	if installed(modules) {
		return node, modules, nil
	}
	if err := install(ctx, at); err != nil {
		return "", "", fmt.Errorf("event hubs stand-in: npm cannot install rhea@%s: %w: install it, and set MILLSTREAM_RHEA to its node_modules folder", Version, err)
	}
	return node, modules, nil
}

func installed(modules string) bool {
	_, err := os.Stat(strings.Join([]string{modules, "rhea", "package.json"}, string(os.PathSeparator)))
	return err == nil
}

// install puts rhea into a folder of its own and then in place at once: two processes may try.
func install(ctx context.Context, at string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is not in PATH")
	}
	parent := at[:strings.LastIndexByte(at, os.PathSeparator)]
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	folder, err := os.MkdirTemp(parent, "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	ctx, cancel := context.WithTimeout(ctx, installWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "rhea@"+Version)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(strings.Fields(string(out[:min(len(out), 400)])), " "))
	}
	if err := os.Rename(folder, at); err != nil && !installed(at+string(os.PathSeparator)+"node_modules") {
		return err
	}
	return nil
}
