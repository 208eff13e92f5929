package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	emulator = "Endpoint=sb://127.0.0.1:5673;SharedAccessKeyName=n;SharedAccessKey=S3CRET;UseDevelopmentEmulator=true"
	account  = "Endpoint=sb://Orders-Prod.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=S3CRET"
)

// A stand-in's address comes before the environment's connection string, and that before an identity.
func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		o          Options
		env        string
		namespace  string
		local      bool
		connection string // a part of it; empty: the identity is used
	}{
		"identity":            {Options{Namespace: "orders-prod", Hub: "h"}, "", "orders-prod.servicebus.windows.net", false, ""},
		"identity, whole":     {Options{Namespace: "Orders.servicebus.chinacloudapi.cn", Hub: "h"}, "", "orders.servicebus.chinacloudapi.cn", false, ""},
		"endpoint":            {Options{Namespace: "n", Hub: "h", Endpoint: "127.0.0.1"}, account, "n", true, "sb://127.0.0.1:5672;"},
		"endpoint, scheme":    {Options{Namespace: "n", Hub: "h", Endpoint: "sb://localhost:7000/"}, "", "n", true, "sb://localhost:7000;"},
		"endpoint, IPv6":      {Options{Namespace: "n", Hub: "h", Endpoint: "[::1]:7000"}, "", "n", true, "sb://[::1]:7000;"},
		"emulator":            {Options{Namespace: "any", Hub: "h"}, emulator, "any", true, "UseDevelopmentEmulator=true"},
		"emulator, its hub":   {Options{Namespace: "any", Hub: "h"}, emulator + ";EntityPath=H", "any", true, "UseDevelopmentEmulator=true"},
		"account":             {Options{Namespace: "orders-prod", Hub: "h"}, account, "orders-prod.servicebus.windows.net", false, "SharedAccessKeyName=n"},
		"account, whole name": {Options{Namespace: "ORDERS-prod.servicebus.windows.net", Hub: "h"}, account + ";EntityPath=h", "orders-prod.servicebus.windows.net", false, "SharedAccessKeyName=n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(ConnectionStringVariable, c.env)
			h, err := Find(c.o)
			if err != nil {
				t.Fatal(err)
			}
			if h.Namespace != c.namespace || h.Local != c.local || !strings.Contains(h.connection, c.connection) || (h.credential == nil) != (c.connection != "") {
				t.Errorf("%+v", h)
			}
			if strings.Contains(h.connection, "EntityPath") {
				t.Errorf("the hub is named twice: %s", h.connection)
			}
			if _, err := h.Consumer(""); err != nil {
				t.Error(err)
			}
			if _, err := h.Producer(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What cannot work is refused, and no error shows a key.
func TestFindRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		env  string
		want string
	}{
		"no namespace":      {Options{Hub: "h"}, "", `namespace "": want a name such as orders-prod`},
		"namespace":         {Options{Namespace: "a..b", Hub: "h"}, "", `namespace "a..b"`},
		"hub":               {Options{Namespace: "n", Hub: "a b"}, "", `event hub "a b"`},
		"endpoint":          {Options{Namespace: "n", Hub: "h", Endpoint: "a:b:c"}, "", `endpoint "a:b:c"`},
		"endpoint, path":    {Options{Namespace: "n", Hub: "h", Endpoint: "127.0.0.1:1/x"}, "", `endpoint "127.0.0.1:1/x"`},
		"unreadable":        {Options{Namespace: "n", Hub: "h"}, "SharedAccessKey=S3CRET", ConnectionStringVariable + " cannot be read"},
		"another namespace": {Options{Namespace: "n", Hub: "h"}, account, ConnectionStringVariable + " is of namespace orders-prod.servicebus.windows.net, and not of n"},
		"another hub":       {Options{Namespace: "orders-prod", Hub: "h"}, account + ";EntityPath=other", ConnectionStringVariable + " is of event hub other, and not of h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(ConnectionStringVariable, c.env)
			_, err := Find(c.o)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "S3CRET") {
				t.Error(err)
			}
		})
	}
}

type answered int

func (a answered) Error() string { return fmt.Sprint("rpc: failed, status code ", int(a)) }
func (a answered) RPCCode() int  { return int(a) }

type marked struct{ error }

func (marked) NonRetriable() {}

func condition(name, text string) error {
	return fmt.Errorf("(connlost): link detached, reason: *Error{Condition: %s, Description: %s, Info: map[]}", name, text)
}

// Errors as the client shows them, what is made of them, and the line for people.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind Failure
		line string
	}{
		{errors.New("read tcp: connection reset by peer"), Transient, "read tcp: connection reset by peer"},
		{errors.New("two\n  lines"), Transient, "two lines"},
		{context.DeadlineExceeded, Transient, "context deadline exceeded"},
		{condition("com.microsoft:timeout", "The operation did not complete. TrackingId:5 Reference:x"), Transient, "com.microsoft:timeout: The operation did not complete."},
		{condition("com.microsoft:server-busy", "busy"), Throttled, "com.microsoft:server-busy: busy"},
		{condition("amqp:not-found", "no hub"), Missing, "amqp:not-found: no hub"},
		{condition("amqp:link:stolen", "New receiver, with a comma"), Stolen, "amqp:link:stolen: New receiver, with a comma"},
		{condition("amqp:unauthorized-access", "no"), Denied, ErrDenied.Error()},
		{condition("com.microsoft:argument-error", "bad offset"), Invalid, "com.microsoft:argument-error: bad offset"},
		{condition("amqp:link:message-size-exceeded", "large"), TooLarge, "amqp:link:message-size-exceeded: large"},
		{condition("amqp:resource-limit-exceeded", "five"), Full, "amqp:resource-limit-exceeded: five"},
		{condition("amqp:something-new", "?"), Transient, "amqp:something-new: ?"},
		{answered(401), Denied, ErrDenied.Error()},
		{answered(404), Missing, "rpc: failed, status code 404"},
		{answered(400), Invalid, "rpc: failed, status code 400"},
		{answered(503), Throttled, "rpc: failed, status code 503"},
		{answered(500), Transient, "rpc: failed, status code 500"},
		{marked{errors.New("DefaultAzureCredential: failed to acquire a token.\nAttempted credentials:")}, Denied, ErrNoCredentials.Error()},
	} {
		err := fmt.Errorf("reading: %w", c.err)
		if kind := Classify(err); kind != c.kind {
			t.Errorf("%v: %d instead of %d", c.err, kind, c.kind)
		}
		if line := Explain(c.err); line.Error() != c.line || !errors.Is(line, c.err) {
			t.Errorf("%v: %q instead of %q", c.err, line, c.line)
		}
	}
	if !errors.Is(Explain(answered(403)), ErrDenied) {
		t.Error("the reason is not found")
	}
}

// A call that does not hear its context is given up in time, and ended.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, ended := time.Now(), make(chan struct{})
		_, err := Within(t.Context(), time.Second, func(context.Context) (int, error) {
			<-ended
			return 1, nil
		}, func() { close(ended) })
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Error(err, took)
		}
		if v, err := Within(t.Context(), time.Second, func(context.Context) (int, error) { return 7, nil }, func() { t.Error("cancelled") }); v != 7 || err != nil {
			t.Error(v, err)
		}
	})
}
