package checkpoint

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

func row(name string, from int64, parents ...string) stream.RosterRow {
	return stream.RosterRow{Partition: stream.Partition{Name: name, Parents: parents}, From: stream.Position{Number: from}}
}

func TestImportIsOneObject(t *testing.T) {
	t.Parallel()
	b := bucket.Memory()
	cfg := config(b)
	cfg.Plan = nil
	s := open(t, cfg)
	i := Import{From: "kcl://t", Partitions: []stream.RosterRow{row("q", 7, "p"), {Partition: stream.Partition{Name: "p"}, Done: true}}}
	if err := s.Import(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	names, err := b.List(t.Context(), "")
	if err != nil || len(names) != 1 {
		t.Fatalf("an import wrote %s, %v", names, err)
	}
	e, err := s.Show(t.Context(), stream.MergerPartition, 1)
	if err != nil {
		t.Fatal(err)
	}
	if r := e.Merger.Roster; e.Kind != stream.KindImport || len(r) != 2 || !r[0].Ended || !r[0].Done || r[1].Ended || r[1].From.Number != 7 || r[1].Start != stream.Beginning {
		t.Errorf("the entry is %+v %+v", e, e.Merger)
	}
	var exists *Exists
	if err := s.Import(t.Context(), i); !errors.As(err, &exists) {
		t.Errorf("a second import: %v", err)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	var exists *Exists
	for name, i := range map[string]Import{
		"nothing":    {},
		"a twin":     {Partitions: []stream.RosterRow{row("p", 1), row("p", 2)}},
		"no name":    {Partitions: []stream.RosterRow{row("", 1)}},
		"the merger": {Partitions: []stream.RosterRow{row(stream.MergerPartition, 1)}},
	} {
		b := bucket.Memory()
		if err := open(t, config(b)).Import(t.Context(), i); err == nil || errors.As(err, &exists) {
			t.Errorf("%s: %v", name, err)
		}
		if names, _ := b.List(t.Context(), ""); len(names) != 0 {
			t.Errorf("%s: wrote %s", name, names)
		}
	}
	b := bucket.Memory()
	if err := b.Create(t.Context(), "p/log/x/00000000000000000001", []byte("anything")); err != nil {
		t.Fatal(err)
	}
	if err := open(t, Config{Bucket: b, Name: "p"}).Import(t.Context(), Import{Partitions: []stream.RosterRow{row("p", 1)}}); !errors.As(err, &exists) {
		t.Errorf("into a pipeline with a log: %v", err)
	}
}

// Two importers race: one of them makes the pipeline.
func TestImportRace(t *testing.T) {
	t.Parallel()
	b := bucket.Memory()
	s := open(t, Config{Bucket: b, Name: "p"})
	var won, lost int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range int64(8) {
		wg.Go(func() {
			err := s.Import(context.Background(), Import{From: "x", Partitions: []stream.RosterRow{row("p", n+1)}})
			var exists *Exists
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.As(err, &exists):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 7 {
		t.Errorf("%d won, %d lost", won, lost)
	}
}

// What an export says is what the next pipeline begins with.
func TestExport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		w := newWorker(open(t, config(b)), "a", "b")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.run(ctx) }()
		<-time.After(30 * time.Second)
		var running *Running
		if err := open(t, Config{Bucket: b, Name: "p"}).Deserted(t.Context()); !errors.As(err, &running) {
			t.Errorf("a running pipeline is deserted: %v", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s := open(t, Config{Bucket: b, Name: "p"})
		if err := s.Deserted(t.Context()); err != nil {
			t.Error(err)
		}
		infos, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		saved := map[string]stream.Position{}
		for _, i := range infos {
			saved[i.Partition] = i.Saved.Position
		}
		i, _, err := s.Export(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(i.Partitions) != 2 || i.From != "millstream:p" {
			t.Fatalf("exports %+v", i)
		}
		for _, r := range i.Partitions {
			if r.From.Number == 0 || r.From != saved[r.Name] || r.Done {
				t.Errorf("%s is exported as %+v, saved is %v", r.Name, r, saved[r.Name])
			}
		}
	})
}
