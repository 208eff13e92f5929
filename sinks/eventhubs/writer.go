package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	cloud "github.com/millstream/millstream/cloud/azure"
	"github.com/millstream/millstream/cloud/retry"
)

const (
	// patience is how long a partition's events may fail before write returns the reason.
	patience = time.Minute
	// sendsAtOnce is how many partitions are written at the same time.
	sendsAtOnce = 16
)

// Counters says what writing has met.
type Counters struct {
	Requests  int64 // batches sent
	Throttled int64 // batches refused because of their rate
	Ambiguous int64 // batches without an answer: their events may be in the hub twice
	Rejected  int64 // events that the hub can never take
}

type counters struct{ requests, throttled, ambiguous, rejected atomic.Int64 }

func (c *counters) read() Counters {
	return Counters{c.requests.Load(), c.throttled.Load(), c.ambiguous.Load(), c.rejected.Load()}
}

// writer writes events to one hub. Safe for concurrent use.
type writer struct {
	at       *cloud.EventHub
	service  service
	names    []string // of the partitions
	counters *counters
	logger   *slog.Logger
}

// newWriter asks for the hub's partitions.
func newWriter(ctx context.Context, o Options, c *counters) (*writer, error) {
	at, err := find(o)
	if err != nil {
		return nil, err
	}
	w := &writer{at: at, service: o.service, counters: c, logger: o.Logger}
	if w.service == nil {
		w.service = &sdk{at: at}
	}
	if w.logger == nil {
		w.logger = slog.Default()
	}
	began := time.Now()
	for n := 1; ; n++ {
		w.names, err = w.service.partitions(ctx)
		switch {
		case err == nil && len(w.names) == 0:
			err = fmt.Errorf("event hubs: %s/%s has no partitions", at.Namespace, at.Hub)
		case err == nil:
			slices.Sort(w.names)
			return w, nil
		case ctx.Err() == nil && passes(err) && time.Since(began) < patience/4:
			if retry.Sleep(ctx, retry.Backoff(n)) == nil {
				continue
			}
			err = w.explain(err)
		default:
			err = w.explain(err)
		}
		w.service.close()
		return nil, err
	}
}

// partition chooses a partition for a key.
func (w *writer) partition(key string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // cannot fail
	return w.names[h.Sum64()%uint64(len(w.names))]
}

// entry is one event on its way. at is the caller's index.
type entry struct {
	event     *azeventhubs.EventData
	partition string
	at        int
}

// write sends entries, to all partitions at once, calls done with the index of each that is stored, one
// call at a time, and returns the indexes of those that the hub can never take. Batches that fail are
// sent again. It returns when all are stored, when ctx is done, when somebody must mend something, or
// when nothing has been stored in a partition for a minute; the others' events are then stored all the
// same, if they can be.
func (w *writer) write(ctx context.Context, entries []entry, done func(at int)) (refused []int, err error) {
	byPartition := make(map[string][]entry)
	for _, e := range entries {
		byPartition[e.partition] = append(byPartition[e.partition], e)
	}
	var (
		mu    sync.Mutex
		sends sync.WaitGroup
		free  = make(chan struct{}, sendsAtOnce)
	)
	for partition, pending := range byPartition {
		free <- struct{}{}
		sends.Go(func() {
			defer func() { <-free }()
			failed := w.fill(ctx, partition, pending, func(stored, tooLarge []entry) {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range stored {
					done(e.at)
				}
				for _, e := range tooLarge {
					refused = append(refused, e.at)
				}
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = failed
			}
		})
	}
	sends.Wait()
	if err == nil { // otherwise they are tried again, and counted then
		w.counters.rejected.Add(int64(len(refused)))
	}
	slices.Sort(refused)
	return refused, err
}

// fill sends one partition's entries in their order, and tells what became of them.
func (w *writer) fill(ctx context.Context, partition string, pending []entry, tell func(stored, tooLarge []entry)) error {
	events := make([]*azeventhubs.EventData, len(pending))
	for i := range pending {
		events[i] = pending[i].event
	}
	progress := time.Now()
	for failures := 0; len(pending) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		w.counters.requests.Add(1)
		n, err := w.service.send(ctx, partition, events)
		switch {
		case err == nil:
			tell(pending[:n], nil)
		case errors.Is(err, errTooLarge):
			n = 1
			tell(nil, pending[:n])
		case ctx.Err() != nil:
			return ctx.Err()
		case !passes(err):
			return w.explain(err)
		default:
			if cloud.Classify(err) == cloud.Throttled {
				w.counters.throttled.Add(1)
			} else {
				w.counters.ambiguous.Add(1)
			}
			if time.Since(progress) > patience {
				return fmt.Errorf("%w: nothing stored in partition %s for %s", w.explain(err), partition, patience)
			}
			failures++
			wait := retry.Backoff(failures)
			w.logger.Debug("a batch failed: sending it again", "hub", w.at.Hub, "partition", partition, "in", wait, "error", cloud.Explain(err))
			if err := retry.Sleep(ctx, wait); err != nil {
				return err
			}
			continue
		}
		pending, events, progress, failures = pending[n:], events[n:], time.Now(), 0
	}
	return nil
}

// passes reports whether an error is one of those that pass by themselves.
func passes(err error) bool {
	kind := cloud.Classify(err)
	return kind == cloud.Transient || kind == cloud.Throttled
}

// explain turns an error into one line that names the hub.
func (w *writer) explain(err error) error {
	if cloud.Classify(err) == cloud.Missing {
		return &reason{fmt.Sprintf("event hubs: there is no event hub %s in namespace %s", w.at.Hub, w.at.Namespace), err}
	}
	return fmt.Errorf("event hubs: %s/%s: %w", w.at.Namespace, w.at.Hub, cloud.Explain(err))
}

// reason is an error whose text stands alone; its cause is for errors.Is and errors.As.
type reason struct {
	text  string
	cause error
}

func (e *reason) Error() string { return e.text }
func (e *reason) Unwrap() error { return e.cause }
