package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers/eventhubs/blobstore"
	"github.com/millstream/millstream/consumers/kinesis/kcl"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

func checkpointsImport() *cobra.Command {
	var from string
	var apply bool
	cmd := storeCommand("import --from STORE", "Begin a new pipeline where another program has stopped", cobra.NoArgs,
		func(cmd *cobra.Command, s *service.StoreSettings, _ []string) error {
			m, err := parseMove(from, s)
			if err != nil {
				return err
			}
			return m.run(cmd.Context(), cmd.OutOrStdout(), s, apply)
		})
	cmd.Long = `Begin a new pipeline (--name) exactly behind what another program has checkpointed: no record is
read again, none is left out. Without --apply it only says what it would do.

  --from 'kcl://TABLE?region=R'   lease table of the Kinesis Client Library 1, 2, 3 or vmware-go-kcl; also
                                  endpoint=, stream=NAME (of several), initial=TRIM_HORIZON|LATEST|TIME (where
                                  the other program begins shards that have no checkpoint)
  --from 'azblob://CONTAINER'     checkpoints of an Event Hubs SDK or of Azure Functions; also account=, endpoint=,
                                  group=NAMESPACE/HUB/CONSUMER-GROUP (of several)
  --from millstream:NAME          another pipeline in the same --checkpoint

Stop the other program first: with --apply its store is watched for --lease, which must be as long as
that program takes to renew its leases, and the import is refused when anything changes in it.`
	cmd.Flags().StringVar(&from, "from", "", "where the other program kept its checkpoints: kcl://TABLE?region=, azblob://CONTAINER, millstream:NAME")
	cmd.Flags().BoolVar(&apply, "apply", false, "write it, rather than only say what would be written")
	return cmd
}

// move is one import: from reads the other program's store.
type move struct {
	name string
	read func(context.Context) (*left, error)
	// deserted makes sure that the other program has stopped; nil: its store is watched.
	deserted func(context.Context) error
}

// left is where the other program has stopped.
type left struct {
	checkpoint.Import
	state   string   // changes while anybody works on it
	owners  []string // for people
	waiting []string // partitions that come by themselves
	notes   []string
	where   func(stream.Position) string
}

func fromProblem(format string, args ...any) error {
	return &service.SettingError{Setting: "--from", Problem: fmt.Sprintf(format, args...)}
}

func parseMove(from string, s *service.StoreSettings) (*move, error) {
	scheme, rest, found := strings.Cut(from, ":")
	if from == "" || !found {
		return nil, fromProblem("name the other program's store: kcl://TABLE?region=, azblob://CONTAINER or millstream:NAME")
	}
	rest, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, fromProblem("%s: %v", from, err)
	}
	only := func(known ...string) error {
		for name := range params {
			if !slices.Contains(known, name) {
				return fromProblem("%s: has no parameter %s: it has %s", from, name, strings.Join(known, ", "))
			}
		}
		if rest == "" {
			return fromProblem("%s: names nothing: want kcl://TABLE?region=, azblob://CONTAINER or millstream:NAME", from)
		}
		return nil
	}
	switch scheme {
	case "kcl":
		o := kcl.Options{Table: rest, Region: params.Get("region"), Endpoint: params.Get("endpoint"), Stream: params.Get("stream"), Initial: params.Get("initial")}
		return &move{name: "kcl://" + rest, read: func(ctx context.Context) (*left, error) { return leftByKCL(ctx, o) }},
			only("region", "endpoint", "stream", "initial")
	case "azblob":
		group := params.Get("group")
		err := only("account", "endpoint", "group")
		params.Del("group")
		raw := strings.TrimSuffix("azblob://"+rest+"?"+params.Encode(), "?")
		return &move{name: "azblob://" + rest, read: func(ctx context.Context) (*left, error) { return leftByEventHubs(ctx, raw, group) }}, err
	case "millstream":
		other := *s
		other.Name = rest
		if rest == s.Name {
			return nil, fromProblem("%s: is the pipeline that --name names: give the new one another name", from)
		}
		return &move{name: "millstream:" + rest, read: func(ctx context.Context) (*left, error) { return leftByMillstream(ctx, &other) },
			deserted: func(ctx context.Context) error { return deserted(ctx, &other) }}, only()
	}
	return nil, fromProblem("%s: unknown kind %s: it is kcl, azblob or millstream", from, scheme)
}

func leftByKCL(ctx context.Context, o kcl.Options) (*left, error) {
	t, err := kcl.Read(ctx, o)
	if err != nil {
		return nil, err
	}
	l := &left{Import: checkpoint.Import{Partitions: t.Shards, Rest: kcl.Rest}, state: t.State, owners: t.Owners, waiting: t.Waiting, where: kcl.Words}
	l.notes = append(l.notes, "shards without a lease are read from their oldest record, unless a leased shard continues them: those had been read")
	return l, nil
}

func leftByEventHubs(ctx context.Context, raw, group string) (*left, error) {
	b, err := bucket.Open(ctx, raw)
	if err != nil {
		return nil, fromProblem("%v", err)
	}
	defer b.Close()
	store, ok := b.(blobstore.Store)
	if !ok {
		return nil, fromProblem("%s: has no metadata", raw)
	}
	g, err := blobstore.Read(ctx, store, group)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.URL(), err)
	}
	l := &left{Import: checkpoint.Import{Partitions: g.Partitions}, state: g.State, owners: g.Owners, where: func(p stream.Position) string {
		return fmt.Sprintf("behind offset %s, sequence number %d", p.Token, p.Number)
	}}
	l.notes = append(l.notes, "checkpoints of "+g.Name)
	if len(g.Unread) > 0 {
		l.notes = append(l.notes, fmt.Sprintf("without a checkpoint, and so read from where start= of --source says: %s", strings.Join(g.Unread, ", ")))
	}
	return l, nil
}

func leftByMillstream(ctx context.Context, s *service.StoreSettings) (*left, error) {
	store, done, err := s.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	i, waiting, err := store.Export(ctx)
	if err != nil {
		return nil, err
	}
	l := &left{Import: i, where: func(p stream.Position) string {
		if p == (stream.Position{}) {
			return "where --source starts: it was never read"
		}
		return "behind " + p.String()
	}}
	if waiting > 0 {
		l.notes = append(l.notes, fmt.Sprintf("%d records or more are in windows of %q that are not out: they are in no row unless that pipeline goes on to its end", waiting, s.Name))
	}
	return l, nil
}

func deserted(ctx context.Context, s *service.StoreSettings) error {
	store, done, err := s.Open(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = store.Deserted(ctx)
	var running *checkpoint.Running
	if errors.As(err, &running) {
		return fmt.Errorf("pipeline %q: %w, then import", s.Name, err)
	}
	return err
}

// run prints what is imported, and with apply imports it.
func (m *move) run(ctx context.Context, out io.Writer, s *service.StoreSettings, apply bool) error {
	store, done, err := s.OpenNew(ctx, !apply)
	if err != nil {
		return err
	}
	defer done()
	if store != nil {
		if err := store.MustBeNew(ctx); err != nil {
			return named(err)
		}
	}
	if apply && m.deserted != nil {
		if err := m.deserted(ctx); err != nil {
			return err
		}
	}
	l, err := m.read(ctx)
	if err != nil {
		return m.problem(err)
	}
	if apply && m.deserted == nil {
		if l, err = m.watch(ctx, l, s.Lease); err != nil {
			return m.problem(err)
		}
	}
	l.From = m.name
	if err := l.print(out); err != nil {
		return err
	}
	if !apply {
		_, err := fmt.Fprintf(out, "\nNothing is written. Stop the other program, then repeat this with --apply to make pipeline %q.\n", s.Name)
		return err
	}
	if err := store.Import(ctx, l.Import); err != nil {
		return named(err)
	}
	_, err = fmt.Fprintf(out, "\nWritten. `millstream run --name %s` with the source of the other program goes on from here.\n", s.Name)
	return err
}

func (m *move) problem(err error) error {
	var setting *service.SettingError
	if errors.As(err, &setting) || ctxDone(err) {
		return err
	}
	return &service.SettingError{Setting: "--from", Problem: err.Error(), Passing: true}
}

func ctxDone(err error) bool { return errors.Is(err, context.Canceled) }

// named turns the refusal of a pipeline that is not new into a wrong setting.
func named(err error) error {
	var exists *checkpoint.Exists
	if errors.As(err, &exists) {
		return &service.SettingError{Setting: "--name", Problem: exists.Error()}
	}
	return err
}

// watch reads the store once more after a while: it is nobody's when it stands still.
func (m *move) watch(ctx context.Context, before *left, d time.Duration) (*left, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	after, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	if after.state != before.state {
		by := ""
		if len(after.owners) > 0 {
			by = " (" + strings.Join(after.owners, ", ") + ")"
		}
		return nil, fmt.Errorf("%s: the other program%s still works on it: stop it first, then import", m.name, by)
	}
	return before, nil // LATEST is the moment at which it was first looked at
}

func (l *left) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tIS READ")
	for _, p := range l.Partitions {
		if p.Done {
			fmt.Fprintf(w, "%s\tno more: it was read to its end\n", p.Name)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\n", p.Name, l.where(p.From))
	}
	for _, name := range l.waiting {
		fmt.Fprintf(w, "%s\tfrom its oldest record, once its parents are read\n", name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, note := range l.notes {
		if _, err := fmt.Fprintln(out, "note: "+note); err != nil {
			return err
		}
	}
	return nil
}
