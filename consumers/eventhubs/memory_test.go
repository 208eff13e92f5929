package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millstream/millstream/cloud/retry"
)

// memory is a hub in memory behind the driver's seam. Its receivers behave as the SDK's do: they wait
// until they have as many events as they were asked for, or the context is done, and return what there
// is; an error only where there is nothing.
type memory struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever anything changes
	parts   map[string]*part
	links   []*link // that were opened, in order
	opened  []azeventhubs.PartitionClientOptions
	asked   int // questions about partitions

	refuseOpen error         // what receivers fail with while it is set
	refuseAsk  error         // what questions fail with while it is set
	repeat     int           // events before its start that a receiver gets again
	attaching  time.Duration // how long a link takes to open; one that is cancelled begins anew
}

type part struct {
	events []*azeventhubs.ReceivedEventData // all that were ever there
	gone   int                              // events that have expired
	level  *int64                           // of the reader that owns the partition
}

func newMemory(partitions int) *memory {
	m := &memory{changed: make(chan struct{}), parts: make(map[string]*part)}
	for i := range partitions {
		m.parts[strconv.Itoa(i)] = &part{}
	}
	return m
}

// change does something, and wakes whoever waits.
func (m *memory) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// offsetOf is an offset as no number would be.
func offsetOf(sequence int) string { return fmt.Sprintf("%d@x", sequence*7+3) }

func (m *memory) publish(partition string, data ...[]byte) {
	m.change(func() {
		p := m.parts[partition]
		for _, d := range data {
			n, now, key := len(p.events), time.Now(), fmt.Sprint("key ", len(p.events))
			p.events = append(p.events, &azeventhubs.ReceivedEventData{EventData: azeventhubs.EventData{Body: d},
				EnqueuedTime: &now, PartitionKey: &key, Offset: offsetOf(n), SequenceNumber: int64(n)})
		}
	})
}

// trim lets the first n events of a partition expire.
func (m *memory) trim(partition string, n int) { m.change(func() { m.parts[partition].gone = n }) }

// grow adds a partition.
func (m *memory) grow(partition string) { m.change(func() { m.parts[partition] = &part{} }) }

// condition is an error as the SDK prints those of the service.
func condition(name, description string) error {
	return fmt.Errorf("link detached, reason: *Error{Condition: %s, Description: %s, Info: map[]}", name, description)
}

var (
	errBusy   = condition("com.microsoft:server-busy", "too many requests")
	errLost   = errors.New("read tcp 10.0.0.1:5671: connection reset by peer")
	errStolen = condition("amqp:link:stolen", "New receiver with higher epoch of '9' is created hence current receiver with epoch '8' is getting disconnected.")
)

// breakLinks makes the open receivers fail, once they have returned what they have.
func (m *memory) breakLinks(err error) {
	m.change(func() {
		for _, l := range m.links {
			l.broken = err
		}
	})
}

// silence makes the open receivers receive nothing any more.
func (m *memory) silence() {
	m.change(func() {
		for _, l := range m.links {
			l.silent = true
		}
	})
}

func (m *memory) refuse(open, ask error) { m.change(func() { m.refuseOpen, m.refuseAsk = open, ask }) }

func (m *memory) hub(context.Context) (azeventhubs.EventHubProperties, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuseAsk != nil {
		return azeventhubs.EventHubProperties{}, m.refuseAsk
	}
	var p azeventhubs.EventHubProperties
	for id := range m.parts {
		p.PartitionIDs = append(p.PartitionIDs, id)
	}
	slices.Sort(p.PartitionIDs)
	return p, nil
}

func (m *memory) partition(_ context.Context, id string) (azeventhubs.PartitionProperties, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.refuseAsk != nil {
		return azeventhubs.PartitionProperties{}, m.refuseAsk
	}
	p := m.parts[id]
	if p == nil {
		return azeventhubs.PartitionProperties{}, errMissing
	}
	q := azeventhubs.PartitionProperties{PartitionID: id, LastEnqueuedSequenceNumber: int64(len(p.events)) - 1,
		BeginningSequenceNumber: int64(p.gone), IsEmpty: p.gone == len(p.events)}
	if len(p.events) > 0 {
		q.LastEnqueuedOn = *p.events[len(p.events)-1].EnqueuedTime
	}
	return q, nil
}

var errMissing = condition("amqp:not-found", "the messaging entity 'orders-prod:eventhub:orders~99' could not be found")

func (m *memory) close() {}

func (m *memory) open(partition string, o *azeventhubs.PartitionClientOptions) (receiver, error) {
	l := &link{m: m, partition: partition, level: o.OwnerLevel, start: o.StartPosition, next: -1}
	m.change(func() { m.links, m.opened = append(m.links, l), append(m.opened, *o) })
	return l, nil
}

// link is one receiver. It attaches with its first call, as the SDK's do.
type link struct {
	m         *memory
	partition string
	level     *int64
	start     azeventhubs.StartPosition
	next      int // the next event; -1: not attached yet
	silent    bool
	broken    error
	closed    bool
}

// attach does what the service does with a new link.
func (l *link) attach() error {
	p := l.m.parts[l.partition]
	switch {
	case l.m.refuseOpen != nil:
		return l.m.refuseOpen
	case p == nil:
		return errMissing
	case p.level != nil && (l.level == nil || *l.level < *p.level):
		return errStolen
	}
	for _, other := range l.m.links {
		if other != l && other.partition == l.partition && other.next >= 0 && l.level != nil {
			other.broken = errStolen
		}
	}
	p.level = l.level
	at := 0
	switch s := l.start; {
	case s.Earliest != nil:
	case s.Offset != nil:
		n, err := strconv.Atoi(strings.TrimSuffix(*s.Offset, "@x"))
		if err != nil || (n-3)%7 != 0 {
			return condition("com.microsoft:argument-error", "The supplied offset '"+*s.Offset+"' is invalid.")
		}
		at = (n-3)/7 + 1
	case s.SequenceNumber != nil:
		at = int(*s.SequenceNumber) + 1
	case s.EnqueuedTime != nil:
		at = slices.IndexFunc(p.events, func(e *azeventhubs.ReceivedEventData) bool { return !e.EnqueuedTime.Before(*s.EnqueuedTime) })
		if at < 0 {
			at = len(p.events)
		}
	}
	l.next = max(at-l.m.repeat, p.gone, 0)
	return nil
}

func (l *link) ReceiveEvents(ctx context.Context, count int, _ *azeventhubs.ReceiveEventsOptions) (events []*azeventhubs.ReceivedEventData, err error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.next < 0 && l.m.attaching > 0 {
		l.m.mu.Unlock()
		err = retry.Sleep(ctx, l.m.attaching)
		if l.m.mu.Lock(); err != nil {
			return nil, err
		}
	}
	for {
		if l.next < 0 && l.broken == nil {
			l.broken = l.attach()
		}
		if p := l.m.parts[l.partition]; p != nil && !l.silent && l.broken == nil {
			n := min(len(p.events)-l.next, count-len(events))
			if n > 0 {
				events, l.next = append(events, p.events[l.next:l.next+n]...), l.next+n
			}
		}
		if err = ctx.Err(); l.broken != nil {
			err = l.broken
		}
		switch {
		case len(events) == count, err != nil && len(events) > 0:
			return events, nil
		case err != nil:
			return nil, err
		}
		changed := l.m.changed
		l.m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.m.mu.Lock()
	}
}

func (l *link) Close(context.Context) error {
	l.m.change(func() { l.closed, l.broken = true, errors.New("closed") })
	return nil
}

// source opens a source of the hub.
func (m *memory) source(t *testing.T, o Options) *Source {
	t.Helper()
	src, err := m.try(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func (m *memory) try(t *testing.T, o Options) (*Source, error) {
	o.Namespace, o.Hub, o.Endpoint, o.service = "orders-prod", "orders", "127.0.0.1:1", m
	src, err := New(t.Context(), o)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links, m.opened, m.asked = nil, nil, 0 // those of New itself
	return src, err
}
