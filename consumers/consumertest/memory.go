package consumertest

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// Memory is a partitioned log in memory: topics of partitions, a Watermill publisher, and a source a
// topic. It is the smallest driver that keeps the whole contract, and can be disturbed. Its position
// is the number of records up to and with this one. Safe for concurrent use.
type Memory struct {
	partitions int
	fetch      int

	mu     sync.Mutex
	topics map[string]*topic
}

type topic struct {
	names []string // in order of creation
	parts map[string]*part
}

type part struct {
	partition stream.Partition
	records   []stream.Record
	end       *stream.PartitionEnd
	gone      bool
	throttled bool
	fail      error
	changed   chan struct{}
}

// NewMemory makes a Memory whose topics start with that many partitions, named "0", "1" and so on,
// read in fetches of at most fetch records.
func NewMemory(partitions, fetch int) *Memory {
	return &Memory{partitions: partitions, fetch: fetch, topics: make(map[string]*topic)}
}

func (m *Memory) topic(name string) *topic {
	t := m.topics[name]
	if t == nil {
		t = &topic{parts: make(map[string]*part)}
		for i := range m.partitions {
			t.add(stream.Partition{Name: strconv.Itoa(i)})
		}
		m.topics[name] = t
	}
	return t
}

func (t *topic) add(p stream.Partition) {
	if t.parts[p.Name] == nil {
		t.names = append(t.names, p.Name)
		t.parts[p.Name] = &part{partition: p, changed: make(chan struct{})}
	}
}

func (p *part) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// with runs f on a partition and wakes its readers.
func (m *Memory) with(topic, partition string, f func(*part)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.topic(topic).parts[partition]
	if p == nil {
		panic(fmt.Sprintf("topic %s has no partition %s", topic, partition))
	}
	f(p)
	p.wake()
}

// Append adds records to a partition. The data must not be changed afterwards.
func (m *Memory) Append(topic, partition string, data ...[]byte) {
	m.with(topic, partition, func(p *part) {
		for _, d := range data {
			p.add(stream.Record{Data: d})
		}
	})
}

// AppendOversize adds a record that is too large, of which only the head is there.
func (m *Memory) AppendOversize(topic, partition string, head []byte, size int64) {
	m.with(topic, partition, func(p *part) { p.add(stream.Record{Data: head, Refused: stream.TooLarge(size)}) })
}

func (p *part) add(r stream.Record) {
	r.Position.Number = int64(len(p.records) + 1)
	r.Key = p.partition.Name
	r.Arrived, _ = stream.At(time.Now())
	p.records = append(p.records, r)
}

// End ends a partition, as a reshard does; children that are new are created.
func (m *Memory) End(topic, partition string, children ...stream.Partition) {
	m.mu.Lock()
	for _, c := range children {
		m.topic(topic).add(c)
	}
	m.mu.Unlock()
	m.with(topic, partition, func(p *part) { p.end = &stream.PartitionEnd{Children: children} })
}

// Gone makes a partition vanish, read or not.
func (m *Memory) Gone(topic, partition string) {
	m.with(topic, partition, func(p *part) { p.gone = true })
}

// Fail makes the next Read of a partition return err.
func (m *Memory) Fail(topic, partition string, err error) {
	m.with(topic, partition, func(p *part) { p.fail = err })
}

// Throttle holds a partition's readers back, or lets them go on.
func (m *Memory) Throttle(topic, partition string, on bool) {
	m.with(topic, partition, func(p *part) { p.throttled = on })
}

// Publisher returns a publisher that writes [Marshal]ed messages; one payload, one partition.
func (m *Memory) Publisher() message.Publisher { return publisher{m} }

type publisher struct{ m *Memory }

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		h := fnv.New32a()
		h.Write(msg.Payload)
		data, err := Marshal(msg)
		if err != nil {
			return err
		}
		p.m.Append(topic, strconv.Itoa(int(h.Sum32()%uint32(p.m.partitions))), data)
	}
	return nil
}

func (p publisher) Close() error { return nil }

type envelope struct {
	UUID     string            `json:"uuid"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Payload  []byte            `json:"payload"`
}

// Marshal puts a whole message into one record, for tests that need UUID and metadata back.
func Marshal(m *message.Message) ([]byte, error) {
	return json.Marshal(envelope{m.UUID, m.Metadata, m.Payload})
}

// Unmarshal is Marshal's inverse, a consumers.Config.Unmarshal.
func Unmarshal(_ string, r *stream.Record) (*message.Message, error) {
	var e envelope
	if err := json.Unmarshal(r.Data, &e); err != nil {
		return nil, err
	}
	m := message.NewMessage(e.UUID, e.Payload)
	for k, v := range e.Metadata {
		m.Metadata.Set(k, v)
	}
	return m, nil
}

// Source returns the source of a topic.
func (m *Memory) Source(topic string) consumers.Source { return &source{m, topic, false} }

// Bounded returns the source of a topic as far as it goes when the pipeline begins.
func (m *Memory) Bounded(topic string) consumers.Source { return &source{m, topic, true} }

type source struct {
	m       *Memory
	topic   string
	bounded bool
}

func (s *source) Partitions(context.Context) ([]stream.Partition, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	var ps []stream.Partition
	t := s.m.topic(s.topic)
	for _, name := range t.names {
		if p := t.parts[name]; !p.gone {
			ps = append(ps, p.partition)
		}
	}
	return ps, nil
}

func (s *source) Tip(context.Context) (string, error) {
	if !s.bounded {
		return "", nil
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	tip := make(map[string]int)
	for name, p := range s.m.topic(s.topic).parts {
		tip[name] = len(p.records)
	}
	b, err := json.Marshal(tip)
	return string(b), err
}

func (s *source) Identity() string { return "memory:" + s.topic }

func (s *source) Close() error { return nil }

func (s *source) Open(_ context.Context, partition string, from stream.Position, tip string) (consumers.Reader, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	p := s.m.topic(s.topic).parts[partition]
	if p == nil || p.gone {
		return nil, fmt.Errorf("partition %s: %w", partition, stream.ErrPartitionGone)
	}
	r := &reader{m: s.m, p: p, at: int(from.Number), limit: -1}
	if r.at < 0 || r.at > len(p.records) {
		return nil, fmt.Errorf("partition %s has no position %s", partition, from)
	}
	if tip != "" {
		var ends map[string]int
		if err := json.Unmarshal([]byte(tip), &ends); err != nil {
			return nil, fmt.Errorf("tip: %w", err)
		}
		r.limit = ends[partition]
	}
	return r, nil
}

type reader struct {
	m     *Memory
	p     *part
	at    int
	limit int // -1: none
	state stream.ReaderState
}

func (r *reader) Read(ctx context.Context) (consumers.Fetch, error) {
	for {
		f, ok, changed, err := r.try()
		if ok || err != nil {
			return f, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return consumers.Fetch{}, context.Cause(ctx)
		}
	}
}

func (r *reader) try() (f consumers.Fetch, ok bool, changed <-chan struct{}, err error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	p := r.p
	if err := p.fail; err != nil {
		p.fail = nil
		return f, false, nil, err
	}
	if p.gone {
		return f, false, nil, fmt.Errorf("partition %s: %w", p.partition.Name, stream.ErrPartitionGone)
	}
	all := len(p.records)
	if r.limit >= 0 {
		all = min(all, r.limit)
	}
	state, n := stream.Reading, min(all-r.at, r.fetch())
	switch {
	case p.throttled:
		state, n = stream.Throttled, 0
	case r.at+n == all:
		state = stream.CaughtUp
	}
	f = consumers.Fetch{Records: slices.Clone(p.records[r.at : r.at+n]), Next: stream.Position{Number: int64(r.at + n)}, State: state}
	if !p.throttled && r.at+n == all && (p.end != nil || r.limit >= 0) {
		f.End = p.end
		if f.End == nil {
			f.End = &stream.PartitionEnd{}
		}
	}
	ok = n > 0 || state != r.state || f.End != nil
	r.at, r.state = r.at+n, state
	return f, ok, p.changed, nil
}

func (r *reader) fetch() int { return max(r.m.fetch, 1) }

func (r *reader) Close() error { return nil }
