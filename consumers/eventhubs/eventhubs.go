// Package eventhubs reads Azure Event Hubs: a consumers.Source whose partitions are the hub's.
//
// # The life of a partition
//
// A hub has a fixed number of partitions, which its owner may raise; [Source.Partitions] asks for them
// each time. They have no parents and never end.
//
// A reader opens a connection of its own, so that a partition that is stuck holds up no other, and a
// link that starts behind its position. It lends the service credit for about four megabytes of events,
// and takes what has come. When nothing has come for a moment it asks the service for the partition's
// last sequence number: only the service knows whether the reader has caught up. If that number is ahead
// of the reader and still no event comes, the receiver has gone silent, as links of this service do now
// and then: it is closed, opened anew on another connection, and counted. Lost connections are retried
// with back-off, counted, and never repeat or leave out an event; throttling is a state of its own.
//
// Opened for a claim ([Source.OpenClaimed]) the link carries the claim's number as its owner level: the
// service disconnects readers of earlier claims of the partition, and refuses them from then on. That
// keeps a process that was stopped and woke up from reading; what it may write is the log's business.
// Two pipelines that share a consumer group disturb each other: give each its own.
//
// # Positions
//
// A record's position is the place behind it: Token is its offset, a string that only the service can
// read, and Number its sequence number. The log keeps positions; blobstore.Write copies them to where
// the clients of the service keep theirs, for tools that show the lag.
package eventhubs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	cloud "github.com/millstream/millstream/cloud/azure"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// Options configures a Source. Namespace and Hub are required.
type Options struct {
	// Namespace, Hub and Endpoint are as in cloud/azure.Options.
	Namespace, Hub, Endpoint string
	// ConsumerGroup reads for itself. Default "$Default".
	ConsumerGroup string
	// Start is where partitions are begun that nothing was ever saved of: "earliest" (the default, the
	// oldest events still held), "latest" (what arrives after the pipeline's first start) or an RFC 3339
	// time. "latest" is the moment at which Tip is first asked, and stays it across restarts when readers
	// are given that tip; partitions that are added later are read from their first event.
	Start string
	// UntilEnd makes Tip return the present end of every partition: reading ends with those events.
	UntilEnd bool
	// CheckEvery is how often a reader to which nothing comes asks whether there is something. Default 5 s.
	CheckEvery time.Duration
	// SilentAfter is how long a receiver may bring nothing while the partition has more before it is
	// replaced. Default 30 s.
	SilentAfter time.Duration
	// Logger hears of what is waited out. Default: slog.Default().
	Logger *slog.Logger

	service service // of tests
}

// Counters says what a Source has met since it was made.
type Counters struct {
	Throttled int64 // refusals because of the rate
	Retried   int64 // failures that pass by themselves: lost connections, internal errors, time-outs
	Silent    int64 // receivers that were replaced because nothing came although there was more
	Expired   int64 // positions behind which events were missing when reading resumed: they may be lost
	Repeated  int64 // events that came again on a new connection, and were left out
	Replaced  int64 // connections for questions that were replaced because no answer came
}

type counters struct {
	throttled, retried, silent, expired, repeated, replaced atomic.Int64
}

// Source is one hub. It implements consumers.Source and consumers.ClaimedSource.
type Source struct {
	options  Options
	name     string // namespace/hub
	identity string
	service  service
	paced    bool // keep below the service's limit for questions
	start    startAt
	logger   *slog.Logger
	counters counters

	mu         sync.Mutex
	partitions map[string]bool  // as last listed
	began      map[string]int64 // what "latest" means for readers without a tip
	asked      time.Time        // when the last question of a reader was asked
}

var _ consumers.ClaimedSource = (*Source)(nil)

// startAt is the parsed Options.Start.
type startAt struct {
	latest bool
	at     time.Time
}

func parseStart(s string) (startAt, error) {
	switch s {
	case "", "earliest":
		return startAt{}, nil
	case "latest":
		return startAt{latest: true}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return startAt{}, fmt.Errorf("start=%s: want earliest, latest or an RFC 3339 time such as 2026-01-02T15:04:05Z", s)
	}
	if t.After(time.Now()) {
		return startAt{}, fmt.Errorf("start=%s is in the future", s)
	}
	return startAt{at: t}, nil
}

// New makes a Source and asks the service for the hub, and for the consumer group, so that a missing
// one, missing credentials, or a namespace that cannot be reached is an error here, in one line.
func New(ctx context.Context, o Options) (*Source, error) {
	o.ConsumerGroup = cmp.Or(o.ConsumerGroup, azeventhubs.DefaultConsumerGroup)
	o.CheckEvery = cmp.Or(max(o.CheckEvery, 0), 5*time.Second)
	o.SilentAfter = cmp.Or(max(o.SilentAfter, 0), 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Source{options: o, logger: o.Logger, began: make(map[string]int64)}
	if strings.ContainsAny(o.ConsumerGroup, "/?#") || len(o.ConsumerGroup) > 50 {
		return nil, fmt.Errorf("event hubs: consumer group %q: want at most 50 letters, digits, . _ and -", o.ConsumerGroup)
	}
	var err error
	if s.start, err = parseStart(o.Start); err != nil {
		return nil, fmt.Errorf("event hubs: %w", err)
	}
	hub, err := cloud.Find(cloud.Options{Namespace: o.Namespace, Hub: o.Hub, Endpoint: o.Endpoint})
	if err != nil {
		return nil, fmt.Errorf("event hubs: %w", err)
	}
	s.name = hub.Namespace + "/" + hub.Hub
	s.identity = strings.ToLower("eventhubs://" + s.name)
	s.paced = !hub.Local
	if s.service = o.service; s.service == nil {
		s.service = newSDK(hub, o.ConsumerGroup, func() { s.counters.replaced.Add(1) })
	}
	ps, err := s.Partitions(ctx)
	if err == nil && len(ps) > 0 {
		err = s.probe(ctx, ps[0].Name)
	}
	if err != nil {
		s.service.close()
		return nil, err
	}
	return s, nil
}

// Identity names the hub for the plan, whatever consumer group reads it.
func (s *Source) Identity() string { return s.identity }

// Group names the consumer group as checkpoint stores do: NAMESPACE/HUB/CONSUMER-GROUP.
func (s *Source) Group() string { return s.name + "/" + s.options.ConsumerGroup }

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Source) Counters() Counters {
	c := &s.counters
	return Counters{c.throttled.Load(), c.retried.Load(), c.silent.Load(), c.expired.Load(), c.repeated.Load(), c.replaced.Load()}
}

// Close closes the connection that questions went over.
func (s *Source) Close() error {
	s.service.close()
	return nil
}

// Partitions lists the hub's partitions.
func (s *Source) Partitions(ctx context.Context) ([]stream.Partition, error) {
	hub, err := control(ctx, s, "", s.service.hub)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool, len(hub.PartitionIDs))
	ps := make([]stream.Partition, 0, len(hub.PartitionIDs))
	for _, id := range hub.PartitionIDs {
		if id == "" || known[id] {
			return nil, fmt.Errorf("event hubs: %s: the service lists partition %q twice, or without a name", s.name, id)
		}
		known[id] = true
		ps = append(ps, stream.Partition{Name: id})
	}
	s.mu.Lock()
	s.partitions = known
	s.mu.Unlock()
	return ps, nil
}

// exists returns an error that wraps ErrPartitionGone for a partition that the hub does not have.
func (s *Source) exists(ctx context.Context, partition string) error {
	s.mu.Lock()
	known := s.partitions[partition]
	s.mu.Unlock()
	if known {
		return nil
	}
	if _, err := s.Partitions(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.partitions[partition] {
		return fmt.Errorf("%s: %w", s.subject(partition), stream.ErrPartitionGone)
	}
	return nil
}

// Open begins to read a partition behind from, without an owner level: beside other such readers, as
// many as the service allows (5), and not beside one that has a level.
func (s *Source) Open(ctx context.Context, partition string, from stream.Position, tip string) (consumers.Reader, error) {
	return s.open(ctx, partition, from, tip, nil)
}

// OpenClaimed begins to read a partition behind from, with the claim as owner level.
func (s *Source) OpenClaimed(ctx context.Context, partition string, from stream.Position, tip string, claim uint64) (consumers.Reader, error) {
	return s.open(ctx, partition, from, tip, to.Ptr(int64(claim)))
}

func (s *Source) open(ctx context.Context, partition string, from stream.Position, tip string, level *int64) (consumers.Reader, error) {
	if from.Number < 0 || from.Token == "" && from.Number != 0 {
		return nil, fmt.Errorf("%s: position %s is not of an event hub", s.subject(partition), from)
	}
	m, err := parseMark(tip)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.subject(partition), err)
	}
	if err := s.exists(ctx, partition); err != nil {
		return nil, err
	}
	r := &reader{src: s, partition: partition, level: level, next: from, sequence: -1, until: -2, room: firstRoom}
	if m.until != nil {
		var known bool
		if r.until, known = m.until[partition]; !known { // came after the tip was taken
			r.finished = &stream.PartitionEnd{}
			return r, nil
		}
	}
	switch {
	case from.Token != "":
		r.resumed, r.sequence = true, from.Number
		r.start = azeventhubs.StartPosition{Offset: &from.Token}
	case s.start.latest:
		at, err := s.beginning(ctx, partition, m)
		if err != nil {
			return nil, err
		}
		r.sequence = at
		r.start = azeventhubs.StartPosition{SequenceNumber: to.Ptr(at)}
		if at < 0 {
			r.start = azeventhubs.StartPosition{Earliest: to.Ptr(true)}
		}
	case !s.start.at.IsZero():
		r.since = s.start.at
		r.start = azeventhubs.StartPosition{EnqueuedTime: &s.start.at, Inclusive: true}
	default:
		r.start = azeventhubs.StartPosition{Earliest: to.Ptr(true)}
	}
	return r, nil
}

// beginning is the sequence number behind which "latest" starts: the tip's, or without a tip that of
// the moment when the partition was first opened here. -1 is the first event.
func (s *Source) beginning(ctx context.Context, partition string, m mark) (int64, error) {
	if m.from != nil {
		if at, known := m.from[partition]; known {
			return at, nil
		}
		return -1, nil
	}
	s.mu.Lock()
	at, known := s.began[partition]
	s.mu.Unlock()
	if known {
		return at, nil
	}
	p, err := s.properties(ctx, partition)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.began[partition]; known {
		return at, nil
	}
	s.began[partition] = p.LastEnqueuedSequenceNumber
	return p.LastEnqueuedSequenceNumber, nil
}

// Tip returns the mark that readers are given: where "latest" began, and with UntilEnd where to end, for
// every partition of the moment. It is empty when neither is asked for.
func (s *Source) Tip(ctx context.Context) (string, error) {
	if !s.start.latest && !s.options.UntilEnd {
		return "", nil
	}
	ps, err := s.Partitions(ctx)
	if err != nil {
		return "", err
	}
	last := make(map[string]int64, len(ps))
	for _, p := range ps {
		props, err := s.properties(ctx, p.Name)
		if err != nil {
			return "", err
		}
		last[p.Name] = props.LastEnqueuedSequenceNumber
	}
	var m mark
	if s.start.latest {
		m.from = last
	}
	if s.options.UntilEnd {
		m.until = last
	}
	return m.String(), nil
}

func (s *Source) properties(ctx context.Context, partition string) (azeventhubs.PartitionProperties, error) {
	return control(ctx, s, partition, func(ctx context.Context) (azeventhubs.PartitionProperties, error) {
		return s.service.partition(ctx, partition)
	})
}

// askEvery keeps the readers of a process below the service's 50 questions a second, which all programs
// of a namespace share.
const askEvery = 50 * time.Millisecond

// mayAsk takes the turn of a reader that wants to ask.
func (s *Source) mayAsk() bool {
	if !s.paced {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.asked) < askEvery {
		return false
	}
	s.asked = now
	return true
}

// controlPatience is how long a question is asked again before the last error is returned.
const controlPatience = 30 * time.Second

// control asks a question, waiting out what passes by itself, and names the hub in what remains.
func control[T any](ctx context.Context, s *Source, partition string, ask func(context.Context) (T, error)) (T, error) {
	began := time.Now()
	for n := 1; ; n++ {
		v, err := ask(ctx)
		if err == nil {
			return v, nil
		}
		if ctx.Err() != nil {
			return v, fmt.Errorf("%w (%w)", s.explain(partition, err), ctx.Err())
		}
		if kind := s.count(err); kind != cloud.Transient && kind != cloud.Throttled || time.Since(began) > controlPatience {
			return v, s.explain(partition, err)
		}
		if retry.Sleep(ctx, retry.Backoff(n)) != nil {
			return v, fmt.Errorf("%w (%w)", s.explain(partition, err), ctx.Err())
		}
	}
}

// count sorts an error and counts it.
func (s *Source) count(err error) cloud.Failure {
	kind := cloud.Classify(err)
	switch kind {
	case cloud.Throttled:
		s.counters.throttled.Add(1)
	case cloud.Transient:
		s.counters.retried.Add(1)
	}
	return kind
}

// probe reads an event, to learn whether the consumer group exists: nothing else tells. When the
// partition is empty nobody answers, and that is the good case too.
func (s *Source) probe(ctx context.Context, partition string) error {
	patience := probeWithin
	if !s.paced {
		patience = probeLocally
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.service.open(partition, &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)}, Prefetch: -1})
	if err != nil {
		return s.explain(partition, err)
	}
	defer discard(r)
	_, err = r.ReceiveEvents(ctx, 1, nil)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if kind := cloud.Classify(err); kind == cloud.Missing || kind == cloud.Denied {
		return s.explain(partition, err)
	}
	return nil // a reader will say it
}

const (
	probeWithin  = 2 * time.Second
	probeLocally = 300 * time.Millisecond
)

// explain turns an error into one line that names the hub, and the partition if there is one.
func (s *Source) explain(partition string, err error) error {
	switch cloud.Classify(err) {
	case cloud.Missing:
		if text := err.Error(); strings.Contains(strings.ToLower(text), "/consumergroups/") {
			return &reason{fmt.Sprintf("event hubs: %s has no consumer group %s", s.name, s.options.ConsumerGroup), err}
		}
		return &reason{fmt.Sprintf("event hubs: there is no event hub %s in namespace %s", s.options.Hub, strings.TrimSuffix(s.name, "/"+s.options.Hub)), err}
	case cloud.Stolen:
		return &reason{s.subject(partition) + ": another reader of consumer group " + s.options.ConsumerGroup +
			" has the partition: a newer claim of this pipeline, or another program, which needs a consumer group of its own", err}
	}
	if partition != "" {
		return fmt.Errorf("%s: %w", s.subject(partition), cloud.Explain(err))
	}
	return fmt.Errorf("event hubs: %s: %w", s.name, cloud.Explain(err))
}

// reason is an error whose text stands alone; its cause is for errors.Is and errors.As.
type reason struct {
	text  string
	cause error
}

func (e *reason) Error() string { return e.text }
func (e *reason) Unwrap() error { return e.cause }

func (s *Source) subject(partition string) string {
	return "event hubs: " + s.name + ": partition " + partition
}

// sorted returns the names of a mark in the order of their numbers.
func sorted(of map[string]int64) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return names
}

var errNoOffset = errors.New("an event without an offset")
