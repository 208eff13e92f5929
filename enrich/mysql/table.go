// Package mysql looks rows up in a table of MySQL or MariaDB. One call is one prepared query, with the keys as
// parameters of the key column's own type and character set, so that its index is used,
//
//	SELECT t.`id`, t.* FROM `app`.`users` AS t WHERE t.`id` IN (?, ?, ?, ?)
//
// in a session that can only read, and that the server ends when the caller's time is over. There is a
// statement for 1, 2, 4, … and 1000 keys; the last key fills the places that are left.
package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/millstream/millstream/enrich"
)

// Options says which table. Address, Database, User, Table and Key are needed.
type Options struct {
	Address  string // "host" or "host:port", port 3306 by default; or a Unix socket's path, "/run/mysqld/mysqld.sock"
	Database string // where Table is, unless it names another
	User     string // needs SELECT on the table
	Password string // the password itself, never printed; empty where the server asks for none
	// TLS is "verify-full" (the certificate is checked, and that it is the host's), "require" (encrypted, but
	// anybody may be the server) or "disable". Default: verify-full, and disable for this machine itself.
	TLS    string
	CAFile string // PEM file of the authorities that may sign the server's certificate; default: the system's

	// Table is "table" or "database.table", and may be a view. A part with a dot in it is put into backticks.
	Table string
	// Key is the column whose values are the keys: an integer, a decimal, a text, varbinary, MariaDB's uuid, or
	// binary(16), which is taken as a uuid in the order of UUID_TO_BIN(x). Texts that are not a value of that
	// type are absent. A text is found if it is the value's own: the shortest decimal form of a number, a uuid
	// in either case, and else byte for byte, whatever the collation thinks: 'A' is not 'a'.
	Key string
	// Select is the columns to read; a.b keeps only field b of the JSON column a. Default: all, and those that are
	// added later too.
	Select []string
	// ValidFrom and ValidTo are the columns that say for which time a row is valid: from the first moment to the
	// one when it is no longer; NULL is open. They are timestamp, datetime (in UTC) or date. With either there
	// may be many rows for a key, which must not overlap.
	ValidFrom, ValidTo string

	MaxConns int          // connections at most, and so queries at once; default 4
	Logger   *slog.Logger // hears of a key without an index; default: nobody does
}

const (
	maxKeys       = 1000
	maxMessage    = 64 << 20 // bytes of one row as the server sends it
	verifyTimeout = 10 * time.Second
)

// Table is a table. Safe for concurrent use.
type Table struct {
	db      *sql.DB
	name    string // for people
	list    string // the columns of the query
	keep    enrich.Fields
	from    string // the quoted table
	key     keyType
	quoted  string // the quoted key column
	asOf    int    // how many columns before the row's own say when it is valid
	since   int    // their places, 0: there is none
	until   int
	json    map[string]bool // columns that MariaDB keeps as text, and checks that it is JSON
	maria   bool
	closed  context.Context
	close   context.CancelFunc
	closing sync.Once

	mu         sync.Mutex
	statements map[shape]*sql.Stmt
}

var _ enrich.Table = (*Table)(nil)

// New connects, and makes sure within 10 s that the table, its columns and the right to read them are there.
func New(ctx context.Context, o Options) (*Table, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("mysql: %w", err)
	}
	return open(ctx, o, connector)
}

// open is New over any connector.
func open(ctx context.Context, o Options, connector driver.Connector) (*Table, error) {
	database, table, err := splitTable(o.Table)
	if err != nil {
		return nil, err
	}
	if database == "" {
		database = o.Database
	}
	t := &Table{
		db: sql.OpenDB(session{connector}), name: o.Table, from: quote(database) + "." + quote(table), quoted: quote(o.Key),
		json: map[string]bool{}, statements: map[shape]*sql.Stmt{},
	}
	most := 4
	if o.MaxConns > 0 {
		most = o.MaxConns
	}
	t.db.SetMaxOpenConns(most)
	t.db.SetMaxIdleConns(most)
	t.db.SetConnMaxLifetime(time.Hour)
	t.db.SetConnMaxIdleTime(5 * time.Minute)
	t.closed, t.close = context.WithCancel(context.WithoutCancel(ctx))
	ctx, stop := context.WithTimeout(ctx, verifyTimeout)
	defer stop()
	if err := t.verify(ctx, o, database, table); err != nil {
		_ = t.Close()
		return nil, fmt.Errorf("mysql: table %s at %s: %w", o.Table, o.Address, err)
	}
	return t, nil
}

// config is everything about connections.
func (o Options) config() (*mysql.Config, error) {
	switch {
	case o.Address == "" || o.Database == "" || o.User == "" || o.Table == "" || o.Key == "":
		return nil, errors.New("mysql: Address, Database, User, Table and Key are needed")
	case o.MaxConns < 0 || o.MaxConns > 1000:
		return nil, fmt.Errorf("mysql: %d connections: the most is 1000", o.MaxConns)
	}
	config := mysql.NewConfig()
	config.User, config.Passwd, config.DBName = o.User, o.Password, o.Database
	config.Logger = &mysql.NopLogger{} // its errors come back as errors
	config.Timeout, config.MaxAllowedPacket = verifyTimeout, maxMessage
	mode, host := o.TLS, o.Address
	if strings.HasPrefix(o.Address, "/") {
		config.Net, config.Addr = "unix", o.Address
		if mode == "" {
			mode = "disable"
		}
	} else {
		port := "3306"
		if h, p, err := net.SplitHostPort(o.Address); err == nil {
			host, port = h, p
		}
		if bare, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(bare, "]")
		}
		ip := net.ParseIP(host)
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 || host == "" || strings.Contains(host, ":") && ip == nil {
			return nil, fmt.Errorf("mysql: %q is not an address: host or host:port is", o.Address)
		}
		if mode == "" && (host == "localhost" || ip != nil && ip.IsLoopback()) {
			mode = "disable"
		}
		config.Net, config.Addr = "tcp", net.JoinHostPort(host, port)
	}
	var err error
	if config.TLS, err = tlsConfig(mode, host, o.CAFile); err != nil {
		return nil, err
	}
	// Tokens of a cloud's identity are sent as they are, which only a server that has proved itself may ask for.
	config.AllowCleartextPasswords = config.TLS != nil && !config.TLS.InsecureSkipVerify
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
		return nil, fmt.Errorf("mysql: TLS %q: it is verify-full, require or disable", mode)
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("mysql: certificate authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mysql: there is no certificate in %s", caFile)
		}
	}
	return config, nil
}

// session makes connections that only read, whose texts are UTF-8 and whose times are UTC. A session that does
// not commit by itself would see the rows of its first query for ever.
type session struct{ driver.Connector }

// settings are the statements of a new session.
var settings = []string{"SET NAMES utf8mb4", "SET SESSION time_zone = '+00:00', autocommit = 1", readOnly}

const (
	readOnly     = "SET SESSION TRANSACTION READ ONLY"
	notSupported = 1235 // ER_NOT_SUPPORTED_YET
)

func (s session) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("the driver executes nothing"), conn.Close())
	}
	for _, statement := range settings {
		_, err := execer.ExecContext(ctx, statement, nil)
		var refused *mysql.MySQLError
		if errors.As(err, &refused) && refused.Number == notSupported && statement == readOnly {
			continue // TiDB; nothing but SELECT is ever sent
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", statement, err), conn.Close())
		}
	}
	return conn, nil
}

// Limit implements enrich.Table.
func (t *Table) Limit() int { return maxKeys }

// Close implements enrich.Table. It may be called twice.
func (t *Table) Close() error {
	t.close()
	var err error
	t.closing.Do(func() { err = t.db.Close() })
	return err
}

// Lookup implements enrich.Table. A key with more than one row, without validity intervals, or with
// overlapping ones is malformed: there is no telling which one is meant.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("mysql: %d keys: a call takes %d", len(keys), maxKeys)
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
		return nil, fmt.Errorf("mysql: table %s: %w", t.name, err)
	}
	return c.Answer()
}
