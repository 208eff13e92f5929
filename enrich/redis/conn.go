package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// maxAnswer is the most bytes that a connection reads between two writes, which is a call's answer, and the
// most bytes of rows that a call returns.
const maxAnswer = 64 << 20

// errTooLarge is what reading ends with there. The connection is then of no use.
var errTooLarge = errors.New("the answer is too large")

// dialer connects, by TLS when there is a configuration, and bounds answers.
func dialer(config *tls.Config, most int) func(ctx context.Context, network, address string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: dialWait}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var conn net.Conn
		var err error
		if config == nil {
			conn, err = plain.DialContext(ctx, network, address)
		} else {
			conn, err = (&tls.Dialer{NetDialer: plain, Config: config}).DialContext(ctx, network, address)
		}
		if err != nil {
			return nil, err
		}
		return &bounded{Conn: conn, most: most}, nil
	}
}

// bounded is a connection with an end to every answer. Its client uses it from one goroutine at a time.
type bounded struct {
	net.Conn
	read, most int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.read = 0
	return b.Conn.Write(p)
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.read > b.most {
		return 0, errTooLarge
	}
	n, err := b.Conn.Read(p)
	b.read += n
	return n, err
}
