//go:build integration

package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// addresses returns those of a server, none when there are none and none are demanded.
//
//	MILLSTREAM_TEST_REDIS=127.0.0.1:6379  redis-server --bind 127.0.0.1 --port 6379
//	MILLSTREAM_TEST_VALKEY_CLUSTER=127.0.0.1:6391,127.0.0.1:6392,127.0.0.1:6393
//	  three times valkey-server --bind 127.0.0.1 --port 639x --cluster-enabled yes, each in a folder of its own
func addresses(t *testing.T, variable string) []string {
	t.Helper()
	address := os.Getenv(variable)
	switch {
	case address != "":
		return strings.Split(address, ",")
	case os.Getenv("MILLSTREAM_INTEGRATION") == "1":
		t.Fatalf("%s is not set", variable)
	default:
		t.Logf("not run: %s is not set", variable)
	}
	return nil
}

func TestIntegrationRedis(t *testing.T) {
	at := addresses(t, "MILLSTREAM_TEST_REDIS")
	if at == nil {
		return
	}
	admin := goredis.NewClient(&goredis.Options{Addr: at[0], Protocol: 2})
	t.Cleanup(func() { _ = admin.Close() })
	overServer(t, Options{Address: at}, admin, []goredis.UniversalClient{admin})
}

// TestIntegrationValkey makes a cluster of three nodes, unless they are one.
func TestIntegrationValkey(t *testing.T) {
	at := addresses(t, "MILLSTREAM_TEST_VALKEY_CLUSTER")
	if at == nil {
		return
	}
	var nodes []goredis.UniversalClient
	for i, address := range at {
		node := goredis.NewClient(&goredis.Options{Addr: address, Protocol: 2})
		t.Cleanup(func() { _ = node.Close() })
		nodes = append(nodes, node)
		first, last := i*16384/len(at), (i+1)*16384/len(at)-1
		if err := node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", first, last).Err(); err != nil && !strings.Contains(err.Error(), "already busy") {
			t.Fatal(err)
		}
		host, port, _ := strings.Cut(at[0], ":")
		if err := node.ClusterMeet(t.Context(), host, port).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range nodes {
		until(t, func() bool {
			info, err := node.Do(t.Context(), "CLUSTER", "INFO").Text()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_known_nodes:", len(at)))
		})
	}
	cluster := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: at, Protocol: 2})
	t.Cleanup(func() { _ = cluster.Close() })
	o := Options{Address: at[:1], Cluster: true}
	overServer(t, o, cluster, nodes)
	t.Run("MovingSlot", func(t *testing.T) { movingSlot(t, o, cluster) })
	t.Run("SlowNode", func(t *testing.T) { slowNode(t, o, cluster, nodes[1]) })
	t.Run("NotAsACluster", func(t *testing.T) {
		o.Cluster = false
		table, err := New(t.Context(), o)
		if err == nil { // the key that New asks for may be on this very node
			defer table.Close()
			_, err = table.Lookup(t.Context(), []string{"a", "b", "c"})
		}
		if err == nil || errors.As(err, new(*enrich.Failed[string])) {
			t.Errorf("%v", err)
		}
	})
}

// until waits for what a server does in its own time.
func until(t *testing.T, done func() bool) {
	t.Helper()
	tick, end := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("not within 30 seconds")
		}
	}
}

// overServer runs the suite, and asks with no more than what README grants.
func overServer(t *testing.T, o Options, client goredis.UniversalClient, nodes []goredis.UniversalClient) {
	o.Logger = slog.New(slog.DiscardHandler)
	n := 0
	for _, kind := range []Kind{JSON, Hash} {
		for _, fields := range [][]string{nil, {"tier"}} {
			o := o
			o.Kind, o.Select = kind, fields
			o.Username, o.Password = "reader", "pass-of-reader"
			prefix := fmt.Sprintf("users-%d", time.Now().UnixNano())
			grant := &Table{kind: kind, names: fields, single: !o.Cluster}
			for _, node := range nodes {
				rule := []any{"ACL", "SETUSER", o.Username, "reset", "on", ">" + o.Password, "~" + prefix + "*"}
				for _, command := range strings.Fields(grant.commands()) {
					rule = append(rule, command)
				}
				if err := node.Do(t.Context(), rule...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			t.Run(fmt.Sprintf("%s,select=%v", kind, fields), func(t *testing.T) {
				if fields != nil {
					o.Prefix = prefix + ":"
					h := harness(t, o, unclosed{client})
					_ = h.Put(t.Context(), "a", map[string]any{"tier": "free", "x": "y"})
					_ = h.Put(t.Context(), "b", map[string]any{"x": "y"})
					wants(t, h.Table.(*Table), map[string]string{"a": `{"tier":"free"}`, "b": "{}", "c": ""})
					return
				}
				enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
					n++
					o := o
					o.Prefix = fmt.Sprintf("%s-%d:", prefix, n)
					h := harness(t, o, unclosed{client})
					h.Select = func(names ...string) (enrich.Table, error) {
						o := o
						o.Select, o.Username, o.Password = names, "", ""
						return New(t.Context(), o)
					}
					return h
				})
			})
			o.Prefix = "others:"
			if table, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), grant.commands()) || strings.Contains(err.Error(), o.Password) {
				t.Errorf("keys that may not be read: %v, %v", table, err)
			}
			o.Password = "wrong"
			if table, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
				t.Errorf("wrong password: %v, %v", table, err)
			}
		}
	}
	t.Run("Kinds", func(t *testing.T) {
		o.Prefix = fmt.Sprintf("kinds-%d:", time.Now().UnixNano())
		set := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		set(client.Set(t.Context(), o.Prefix+"string", `{"n":1}`, 0).Err())
		set(client.HSet(t.Context(), o.Prefix+"hash", "n", "1").Err())
		set(client.LPush(t.Context(), o.Prefix+"list", "1").Err())
		wants(t, openTable(t, o), map[string]string{"string": `{"n":1}`, "hash": "!malformed", "list": "!malformed", "absent": ""})
		o.Kind = Hash
		wants(t, openTable(t, o), map[string]string{"string": "!malformed", "hash": `{"n":"1"}`, "list": "!malformed", "absent": ""})
		o.Select = []string{"n"}
		wants(t, openTable(t, o), map[string]string{"string": "!malformed", "hash": `{"n":"1"}`, "list": "!malformed", "absent": ""})
	})
}

// unclosed is a client that outlives the harnesses that use it.
type unclosed struct{ goredis.UniversalClient }

func (unclosed) Close() error { return nil }

// movingSlot: while a slot goes from one node to another, and after, its keys are answered, wherever they are.
func movingSlot(t *testing.T, o Options, cluster *goredis.ClusterClient) {
	// One slot for all, which holds nothing else.
	until(t, func() bool {
		o.Prefix = fmt.Sprintf("{moving-%d}:", time.Now().UnixNano())
		node, err := cluster.MasterForKey(t.Context(), o.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.ClusterCountKeysInSlot(t.Context(), int(cluster.ClusterKeySlot(t.Context(), o.Prefix).Val())).Result()
		return err == nil && n == 0
	})
	table := openTable(t, o)
	want := map[string]string{"absent": ""}
	for i := range 10 {
		key := fmt.Sprint(i)
		want[key] = fmt.Sprintf(`{"n":%d}`, i)
		if err := cluster.Set(t.Context(), o.Prefix+key, want[key], 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, table, want)
	slot := cluster.ClusterKeySlot(t.Context(), o.Prefix).Val()
	from, err := cluster.MasterForKey(t.Context(), o.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	var to *goredis.Client
	nodes := map[*goredis.Client]string{}
	for _, address := range cluster.Options().Addrs {
		node := goredis.NewClient(&goredis.Options{Addr: address, Protocol: 2})
		t.Cleanup(func() { _ = node.Close() })
		nodes[node] = node.Do(t.Context(), "CLUSTER", "MYID").Val().(string)
		if node.Options().Addr != from.Options().Addr {
			to = node
		}
	}
	fromID, _ := from.Do(t.Context(), "CLUSTER", "MYID").Text()
	do := func(node *goredis.Client, args ...any) {
		t.Helper()
		if err := node.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", nodes[to])
	host, port, _ := strings.Cut(to.Options().Addr, ":")
	for i := range 5 {
		do(from, "MIGRATE", host, port, o.Prefix+fmt.Sprint(i), 0, 5000)
	}
	wants(t, table, want) // half here, half there
	for i := 5; i < 10; i++ {
		do(from, "MIGRATE", host, port, o.Prefix+fmt.Sprint(i), 0, 5000)
	}
	do(to, "CLUSTER", "SETSLOT", slot, "NODE", nodes[to])
	do(from, "CLUSTER", "SETSLOT", slot, "NODE", nodes[to])
	wants(t, table, want) // all there
}

// slowNode: keys of a node that does not answer within the call's time fail, those of the others do not.
func slowNode(t *testing.T, o Options, cluster *goredis.ClusterClient, slow goredis.UniversalClient) {
	o.Prefix = fmt.Sprintf("slow-%d:", time.Now().UnixNano())
	table := openTable(t, o)
	var keys []string
	for i := range 30 {
		keys = append(keys, fmt.Sprint(i))
		if err := cluster.Set(t.Context(), o.Prefix+keys[i], "{}", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if rows, err := table.Lookup(t.Context(), keys); err != nil || len(rows) != len(keys) {
		t.Fatal(rows, err)
	}
	paused := slow.(*goredis.Client).Options().Addr
	if err := slow.Do(t.Context(), "CLIENT", "PAUSE", 1500, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	rows, err := table.Lookup(ctx, keys)
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(rows)+len(failed.Keys) != len(keys) || len(rows) == 0 || errors.Is(err, enrich.ErrMalformed) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for key := range failed.Keys {
		if node, err := cluster.MasterForKey(t.Context(), o.Prefix+key); err != nil || node.Options().Addr != paused {
			t.Errorf("%s of another node failed: %v", key, failed.Keys[key])
		}
	}
	until(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		rows, err := table.Lookup(ctx, keys)
		return err == nil && len(rows) == len(keys)
	})
}
