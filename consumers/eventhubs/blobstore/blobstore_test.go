package blobstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// blob is an object of the original programs: metadata, or a body.
type blob struct {
	body string
	meta map[string]string
	tag  string
}

type container map[string]blob

func (c container) List(context.Context, string) ([]string, error) {
	return slices.Sorted(maps.Keys(c)), nil
}

func (c container) Get(_ context.Context, name string) ([]byte, error) {
	if b, ok := c[name]; ok {
		return []byte(b.body), nil
	}
	return nil, bucket.ErrNotFound
}

func (c container) Attributes(_ context.Context, name string) (bucket.Attributes, error) {
	if b, ok := c[name]; ok {
		return bucket.Attributes{Metadata: b.meta, Tag: b.tag}, nil
	}
	return bucket.Attributes{}, bucket.ErrNotFound
}

func (c container) PutMetadata(_ context.Context, name string, metadata map[string]string) error {
	c[name] = blob{meta: metadata}
	return nil
}

// What is written is what the SDKs write, and is read back.
func TestWrite(t *testing.T) {
	t.Parallel()
	c := make(container)
	for partition, at := range map[string]stream.Position{"0": {Token: "100", Number: 7}, "10": {Token: "1:2:0", Number: 8}} {
		if err := Write(t.Context(), c, "NS.servicebus.windows.net/Hub/$Default", partition, at); err != nil {
			t.Fatal(err)
		}
	}
	if want := (container{group + "/checkpoint/0": sdk("100", 7), group + "/checkpoint/10": sdk("1:2:0", 8)}); fmt.Sprint(c) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", c, want)
	}
	if g, err := Read(t.Context(), c, ""); err != nil || show(g) != "0 100/7, 10 1:2:0/8" {
		t.Error(g, err)
	}
}

const group = "ns.servicebus.windows.net/hub/$default"

func sdk(offset string, sequence int64) blob {
	return blob{meta: map[string]string{"offset": offset, "sequencenumber": fmt.Sprint(sequence)}}
}

func owned(by string) blob { return blob{meta: map[string]string{"ownerid": by}} }

func functions(partition, offset string, sequence int64) blob {
	return blob{body: fmt.Sprintf(`{"Offset":%s,"SequenceNumber":%d,"PartitionId":%q,"Owner":"host","Token":"5d0b","Epoch":7}`, offset, sequence, partition)}
}

func show(g *Group) string {
	var lines []string
	for _, r := range g.Partitions {
		lines = append(lines, r.Name+" "+r.From.String())
	}
	for _, p := range g.Unread {
		lines = append(lines, p+" unread")
	}
	return strings.Join(lines, ", ")
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   container
		of   string
		want string
	}{
		{"SDK", container{group + "/checkpoint/0": sdk("100", 7), group + "/checkpoint/10": sdk("300", 9), group + "/checkpoint/2": sdk("200", 8),
			group + "/ownership/0": owned("me"), group + "/ownership/3": owned("me")}, "", "0 100/7, 2 200/8, 10 300/9, 3 unread"},
		{"SDK, its previews", container{group + "/checkpoint/0": {meta: map[string]string{"Offset": "100", "Sequence_Number": "7"}}}, "", "0 100/7"},
		{"an offset that is no number, as geo-replication has them", container{group + "/checkpoint/0": sdk("1:2:0", 7)}, "", "0 1:2:0/7"},
		{"Functions, old", container{group + "/0": functions("0", `"100"`, 7), group + "/1": functions("1", "null", 0), group + "/2": functions("2", `""`, 0)}, "",
			"0 100/7, 1 unread, 2 unread"},
		{"Functions, brought up to date", container{group + "/0": functions("0", `"100"`, 7), group + "/1": functions("1", `"50"`, 6), group + "/checkpoint/0": sdk("200", 8)}, "",
			"0 200/8, 1 50/6"},
		{"one of several", container{group + "/checkpoint/0": sdk("100", 7), "ns/other/g/checkpoint/0": sdk("9", 1)}, "NS/Other/g", "0 9/1"},
		{"beside other blobs", container{group + "/checkpoint/0": sdk("100", 7), "readme.txt": {}, "a/b/c/d/e": {}, "state/orders/members/vm-1": {body: "{}"}}, "", "0 100/7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, err := Read(t.Context(), c.in, c.of)
			if err != nil {
				t.Fatal(err)
			}
			if show(g) != c.want {
				t.Errorf("got %s, want %s", show(g), c.want)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   container
		of   string
		want string
	}{
		{"empty", container{}, "", "no checkpoints"},
		{"several", container{group + "/checkpoint/0": sdk("100", 7), "ns/other/g/checkpoint/0": sdk("9", 1)}, "", "add group=NAMESPACE/HUB/CONSUMER-GROUP, one of ns.servicebus.windows.net/hub/$default, ns/other/g"},
		{"not there", container{group + "/checkpoint/0": sdk("100", 7)}, "a/b/c", "no checkpoints of a/b/c: there are those of " + group},
		{"no offset", container{group + "/checkpoint/0": {}}, "", "checkpoint " + group + "/checkpoint/0: its metadata have no offset"},
		{"no sequence number", container{group + "/checkpoint/0": {meta: map[string]string{"offset": "1"}}}, "", `sequencenumber "" is no number`},
		{"no lease", container{group + "/0": {body: "hello"}}, "", "is no lease"},
		{"JSON of something else", container{group + "/0": {body: "{}"}}, "", "it has no PartitionId"},
		{"nothing processed", container{group + "/ownership/0": owned("me")}, "", "has no checkpoint yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Read(t.Context(), c.in, c.of); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("says %v, want %q", err, c.want)
			}
		})
	}
}

// A renewed ownership changes the state, and so does a checkpoint.
func TestState(t *testing.T) {
	t.Parallel()
	read := func(c container) string {
		t.Helper()
		g, err := Read(t.Context(), c, "")
		if err != nil {
			t.Fatal(err)
		}
		return g.State
	}
	base := func() container {
		return container{group + "/checkpoint/0": sdk("100", 7), group + "/ownership/0": owned("me"), group + "/1": functions("1", `"5"`, 5)}
	}
	was := read(base())
	if was != read(base()) {
		t.Error("the state changes by itself")
	}
	renewed, moved, stolen := base(), base(), base()
	renewed[group+"/ownership/0"] = blob{meta: map[string]string{"ownerid": "me"}, tag: "2"}
	moved[group+"/checkpoint/0"] = sdk("101", 8)
	stolen[group+"/1"] = functions("1", `"6"`, 6)
	for name, c := range map[string]container{"renewed": renewed, "moved": moved, "stolen": stolen} {
		if was == read(c) {
			t.Errorf("%s is the same state", name)
		}
	}
}
