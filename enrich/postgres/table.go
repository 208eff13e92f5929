// Package postgres looks rows up in a PostgreSQL table. One call is one query over the wire protocol's
// pipeline: the texts of the keys are taken as values of the key column's own type, so that its index is used,
//
//	SELECT t."id", t.* FROM "public"."users" AS t WHERE t."id" = ANY($1)
//
// and it runs in a transaction of its own that can only read and that the server ends when the caller's time is
// over. Nothing is kept in the session, so that a pooler between may give every call another one.
package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millstream/millstream/enrich"
)

// Options says which table. Address, User, Table and Key are needed.
type Options struct {
	Address  string // "host" or "host:port", port 5432 by default; or a Unix socket's directory, "/var/run/postgresql"
	Database string // default: the user's name, as everywhere in PostgreSQL
	User     string // needs SELECT on the table, and USAGE on its schema
	Password string // the password itself, never printed; empty where the server asks for none
	// TLS is "verify-full" (the certificate is checked, and that it is the host's), "require" (encrypted, but
	// anybody may be the server) or "disable". Default: verify-full, and disable for this machine itself.
	TLS    string
	CAFile string // PEM file of the authorities that may sign the server's certificate; default: the system's

	// Table is "table" or "schema.table", exactly as the catalogue has it: upper case matters. A part with a
	// dot in it is put into double quotes. A view is a table too.
	Table string
	// Key is the column whose values are the keys: an integer, numeric, uuid or any text. Texts that are not a
	// value of that type are absent. A text is found if it is the value's own: the shortest decimal form of a
	// number, a uuid in either case, and else byte for byte, whatever the collation or citext thinks (the
	// padding of character(n) is no part of it).
	Key string
	// Select is the columns to read; a.b keeps only field b of the json or jsonb column a. Default: all, and those
	// that are added later too.
	Select []string
	// ValidFrom and ValidTo are the columns that say for which time a row is valid: from the first moment to the
	// one when it is no longer; NULL and infinity are open. They are timestamptz, timestamp (in UTC) or date.
	// With either there may be many rows for a key, which must not overlap.
	ValidFrom, ValidTo string

	MaxConns int          // connections at most, and so queries at once; default 4
	Logger   *slog.Logger // hears of a key without an index; default: nobody does
}

// Limits that no caller needs to change.
const (
	maxKeys       = 1000
	maxMessage    = 64 << 20 // bytes of one row as the server sends it
	verifyTimeout = 10 * time.Second
)

// Table is a table. Safe for concurrent use.
type Table struct {
	pool   *pgxpool.Pool
	name   string // for people
	query  string
	keep   enrich.Fields
	key    keyType
	asOf   int // how many columns before the row's own say when it is valid
	from   int // their places, 0: there is none
	to     int
	closed context.Context
	close  context.CancelFunc

	mu    sync.RWMutex
	types map[uint32]column // by the type's number
}

var _ enrich.Table = (*Table)(nil)

// New connects, and makes sure within 10 s that the table, its columns and the right to read them are there.
func New(ctx context.Context, o Options) (*Table, error) {
	switch {
	case o.Address == "" || o.User == "" || o.Table == "" || o.Key == "":
		return nil, errors.New("postgres: Address, User, Table and Key are needed")
	case o.MaxConns < 0 || o.MaxConns > 1000:
		return nil, fmt.Errorf("postgres: %d connections: the most is 1000", o.MaxConns)
	}
	name, err := quoteTable(o.Table)
	if err != nil {
		return nil, err
	}
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	closed, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx, stop := context.WithTimeout(ctx, verifyTimeout)
	defer stop()
	pool, err := pgxpool.NewWithConfig(closed, config)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("postgres: table %s: %w", o.Table, err)
	}
	t := &Table{pool: pool, name: o.Table, closed: closed, close: cancel, types: map[uint32]column{}}
	if err := t.open(ctx, o, name); err != nil {
		_ = t.Close()
		return nil, fmt.Errorf("postgres: table %s at %s: %w", o.Table, o.Address, err)
	}
	return t, nil
}

// config is everything about connections. The PG* variables of libpq have no say.
func (o Options) config() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig("host=127.0.0.1 port=5432 user=nobody sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	host, port := o.Address, "5432"
	socket := strings.HasPrefix(o.Address, "/")
	if h, p, err := net.SplitHostPort(o.Address); err == nil && !socket {
		host, port = h, p
	}
	if bare, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(bare, "]")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil && !socket {
		return nil, fmt.Errorf("postgres: %q is not an address: host or host:port is", o.Address)
	}
	conn := &config.ConnConfig.Config
	conn.Host, conn.Port = host, uint16(number)
	conn.User, conn.Password, conn.Database = o.User, o.Password, o.Database
	conn.Fallbacks, conn.ValidateConnect, conn.SSLNegotiation, conn.RequireAuth = nil, nil, "", ""
	conn.ConnectTimeout = verifyTimeout
	conn.RuntimeParams = map[string]string{"client_encoding": "UTF8", "application_name": "millstream"}
	conn.MaxProtocolMessageBodyLen = maxMessage
	mode := o.TLS
	if ip := net.ParseIP(host); mode == "" && (socket || host == "localhost" || ip != nil && ip.IsLoopback()) {
		mode = "disable"
	}
	if conn.TLSConfig, err = tlsConfig(mode, host, o.CAFile); err != nil {
		return nil, err
	}
	config.MaxConns = 4
	if o.MaxConns > 0 {
		config.MaxConns = int32(o.MaxConns)
	}
	return config, nil
}

func tlsConfig(mode, host, caFile string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	switch mode {
	case "disable":
		return nil, nil
	case "require":
		config.InsecureSkipVerify = true
	case "", "verify-full":
	default:
		return nil, fmt.Errorf("postgres: TLS %q: it is verify-full, require or disable", mode)
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("postgres: certificate authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("postgres: there is no certificate in %s", caFile)
		}
	}
	return config, nil
}

// Limit implements enrich.Table.
func (t *Table) Limit() int { return maxKeys }

// Close implements enrich.Table. It may be called twice. A server that has stopped answering, and cannot be told
// that its query is not wanted any more, holds it for 15 s.
func (t *Table) Close() error {
	t.close()
	t.pool.Close()
	return nil
}

// Lookup implements enrich.Table. A key with more than one row, without validity intervals, or with
// overlapping ones is malformed: there is no telling which one is meant.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("postgres: %d keys: a call takes %d", len(keys), maxKeys)
	}
	c := enrich.NewCollector(keys, t.key.value, t.asOf > 0)
	if len(c.Values()) == 0 {
		return map[string][]enrich.Row{}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.closed, func() { cancel(errors.New("the table is closed")) })()
	if err := t.ask(ctx, c); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, fmt.Errorf("postgres: table %s: %w", t.name, err)
	}
	return c.Answer()
}
