package enrichtest

import (
	"net"
	"sync"
	"testing"
)

// Relay passes connections on to a server that is not the test's own, so that it can be taken Down.
type Relay struct {
	Address  string // host:port to connect to
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	down     bool
}

// NewRelay starts a Relay to the server at a host:port. It ends with the test.
func NewRelay(t *testing.T, to string) *Relay {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Address: listener.Addr().String(), listener: listener}
	t.Cleanup(r.Down)
	ctx := t.Context()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(ctx, "tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			r.pass(client, server)
			r.pass(server, client)
		}
	}()
	return r
}

// pass copies what comes from one connection to another until either ends.
func (r *Relay) pass(from, to net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		_ = from.Close()
		return
	}
	r.conns = append(r.conns, from)
	go func() {
		_, _ = to.(*net.TCPConn).ReadFrom(from)
		_ = to.Close()
	}()
}

// Down drops every connection and takes no more.
func (r *Relay) Down() {
	_ = r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = true
	for _, c := range r.conns {
		_ = c.Close()
	}
}
