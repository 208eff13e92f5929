// Package redis is the driver of tables in Redis or Valkey: a server, or a cluster of them.
//
// # The life of a call
//
// The prefix and the text of a key make the name of a Redis key. Rows are strings that hold a JSON object,
// or hashes. Strings are asked for by one MGET, which answers nil for what is not there, but for a key that
// is something else than a string too; so the nils are asked for again by GETs, which tell these apart.
// Hashes are asked for by HGETALLs or HMGETs that travel together. In a cluster every key is asked for by a
// command of its own, and the client sends each node those of its slots. A key whose own answer is an error,
// or whose row cannot be read, is in an *enrich.Failed, and so are those of a cluster's node that does not
// answer; when no key has an answer, for a reason that is not its own, the call fails.
//
// What a connection answers to a call is at most 64 MiB. A call that would be answered by more is asked
// again in halves, and a row that is too large by itself is malformed.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/millstream/millstream/enrich"
)

const (
	// limit is how many keys a call takes. The server does nothing else while it works on a MGET: 1,000
	// keys are well below a millisecond.
	limit = 1000
	// verifyWait bounds New.
	verifyWait = 10 * time.Second
	// answerWait bounds the wait for an answer of a call whose context has no deadline.
	answerWait = 30 * time.Second
	// dialWait bounds the making of a connection.
	dialWait = 5 * time.Second
)

// Kind is how rows are kept.
type Kind string

// The kinds of rows.
const (
	JSON Kind = "json" // a string that holds one JSON object
	Hash Kind = "hash" // a hash, whose fields become strings
)

// Options says which keys to read, and where. All may be left out.
type Options struct {
	// Address is the server's host:port, or several nodes of a cluster, of which one that answers is enough.
	// Without a port it is 6379. Default: localhost.
	Address []string
	// Cluster says that the server is a cluster, whose other nodes are found by asking.
	Cluster bool
	// TLS encrypts connections; &tls.Config{} verifies the server by the system's roots. Default: none.
	TLS *tls.Config
	// Username and Password log in. No name: the server's default user.
	Username, Password string
	// DB is the number of the database. A cluster has only 0.
	DB int
	// Prefix precedes the text of a key: with "user:" the row of 7 is at user:7.
	Prefix string
	// Kind is how rows are kept. Default: JSON.
	Kind Kind
	// Select names the fields to read: in JSON rows a.b is field b of object a, in hashes names are names.
	// Hashes are asked for these fields only. Default: all.
	Select []string
	// Connections is the most that are open to a server, each for one call at a time. Default: 16.
	Connections int
	// Logger takes what the client library writes about connections, at level debug: Lookup's errors say the
	// same. The library has one place for it in a process. Default: left as it is, which is standard error.
	Logger *slog.Logger
}

// Table reads the keys of one server or cluster. It is safe for concurrent use.
type Table struct {
	client goredis.UniversalClient
	prefix string
	kind   Kind
	single bool // MGET is answered whole
	fields enrich.Fields
	names  []string // of a hash's fields, sorted; none: all
	most   int      // bytes of an answer, and of a call's rows
	where  string   // for errors
}

var _ enrich.Table = (*Table)(nil)

// New connects, and reads a key as Lookup will, so that a server that is not there, or does not allow it, is
// an error here. It takes ten seconds at most.
func New(ctx context.Context, o Options) (*Table, error) {
	t, err := open(o, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	if _, err := t.Lookup(ctx, []string{"0"}); err != nil && !errors.Is(err, enrich.ErrMalformed) {
		_ = t.Close()
		return nil, fmt.Errorf("%w%s", err, t.advice(err))
	}
	return t, nil
}

func open(o Options, most int) (*Table, error) {
	if len(o.Address) == 0 {
		o.Address = []string{"localhost:6379"}
	}
	o.Address = slices.Clone(o.Address)
	for i, address := range o.Address {
		if !strings.Contains(address, ":") && address != "" {
			o.Address[i] = address + ":6379"
		} else if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("address: give host:port, such as localhost:6379: %w", err)
		}
	}
	switch {
	case o.Cluster && o.DB != 0:
		return nil, fmt.Errorf("database %d of a cluster: a cluster has only 0", o.DB)
	case !o.Cluster && len(o.Address) > 1:
		return nil, errors.New("several addresses are those of a cluster: set Cluster, or give one address")
	case o.Username != "" && o.Password == "":
		return nil, fmt.Errorf("user %q has no password", o.Username)
	}
	t := &Table{prefix: o.Prefix, kind: o.Kind, single: !o.Cluster, most: most, where: strings.Join(o.Address, ",")}
	switch o.Kind {
	case "":
		t.kind = JSON
	case JSON, Hash:
	default:
		return nil, fmt.Errorf("rows of kind %q: use %q or %q", o.Kind, JSON, Hash)
	}
	if t.kind == Hash {
		t.names = slices.Compact(slices.Sorted(slices.Values(o.Select)))
	} else {
		var err error
		if t.fields, err = enrich.SelectFields(o.Select); err != nil {
			return nil, err
		}
	}
	if o.Logger != nil {
		goredis.SetLogger(debug{o.Logger})
	}
	connections := o.Connections
	if connections <= 0 {
		connections = 16
	}
	t.client = goredis.NewUniversalClient(&goredis.UniversalOptions{
		Addrs: o.Address, IsClusterMode: o.Cluster, DB: o.DB, Username: o.Username, Password: o.Password,
		Dialer: dialer(o.TLS, most), DialTimeout: dialWait, DialerRetries: 1,
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               -1, // package enrich retries
		MaxRedirects:             3,  // what a moving slot needs
		ContextTimeoutEnabled:    true, ReadTimeout: answerWait, WriteTimeout: answerWait, PoolTimeout: answerWait,
		PoolSize: connections, MaxActiveConns: connections, PipelinePoolSize: -1, // one pool
		ReadBufferSize: 64 << 10,
	})
	return t, nil
}

// debug is a logger of the client library.
type debug struct{ to *slog.Logger }

func (d debug) Printf(ctx context.Context, format string, v ...any) {
	if d.to.Enabled(ctx, slog.LevelDebug) {
		d.to.DebugContext(ctx, fmt.Sprintf(format, v...))
	}
}

// advice is what to do about an error of New, if that is known.
func (t *Table) advice(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "NOAUTH"):
		return ": give a password"
	case strings.Contains(text, "WRONGPASS"):
		return ": give the name and password of a user of the server"
	case strings.Contains(text, "NOPERM"):
		return ": allow it: ACL SETUSER … ~" + t.prefix + "* " + t.commands()
	case strings.Contains(text, "cluster support disabled"):
		return ": leave Cluster out"
	case strings.Contains(text, "MOVED"):
		return ": it is a node of a cluster: set Cluster"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return ": leave TLS out"
	}
	return ""
}

// commands are those that the user of a server must be allowed.
func (t *Table) commands() string {
	var all string
	switch {
	case t.kind == Hash && t.names != nil:
		all = "+hmget +hlen"
	case t.kind == Hash:
		all = "+hgetall"
	case t.single:
		all = "+mget +get"
	default:
		all = "+get"
	}
	if !t.single {
		all += " +cluster|slots"
	}
	return all
}

// Limit returns 1000.
func (t *Table) Limit() int { return limit }

// Close closes connections. Lookups that are under way fail.
func (t *Table) Close() error {
	if err := t.client.Close(); err != nil && !errors.Is(err, goredis.ErrClosed) {
		return fmt.Errorf("redis %s: close: %w", t.where, err)
	}
	return nil
}

// Lookup implements enrich.Lookup.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > limit {
		return nil, fmt.Errorf("redis %s: %d keys in one call, %d at most", t.where, len(keys), limit)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redis %s: %w", t.where, err)
	}
	c := &call{table: t, rows: make(map[string][]enrich.Row, len(keys)), failed: map[string]error{}}
	keys = slices.Clone(keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if len(keys) == 0 {
		return c.rows, nil
	}
	// A node of a cluster that does not answer should not take the other nodes' answers with it: it is given
	// up a little before the call's time is over.
	asked := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		asked, cancel = context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/10))
		defer cancel()
	}
	// The client looks at a context's deadline, but not at its end while it waits for an answer: who has
	// cancelled does not wait for it, and the connection's time-out ends what is left.
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.ask(asked, keys)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, fmt.Errorf("redis %s: %w", t.where, ctx.Err())
	}
	return c.answer(ctx, keys)
}

// describe names a key in an error, shortened.
func (t *Table) describe(key string) string { return strconv.Quote(fmt.Sprintf("%.64s", t.prefix+key)) }
