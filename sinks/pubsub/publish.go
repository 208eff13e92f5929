package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/cloud/retry"
)

// refused is an entry that the service does not take, alone in its request.
type refused struct {
	at  int
	why string
}

// publishing is one call of publish.
type publishing struct {
	*writer
	stop chan struct{} // closed at the first failure: nothing more is begun

	mu       sync.Mutex
	progress time.Time // when something was last stored
	left     int       // entries neither stored nor refused
	stored   func(at int)
	refused  []refused
	failure  error
}

// publish sends all entries and then collects: requests of up to 1,000 messages, several at once, those
// with one ordering key one after the other. It calls stored with the index of each entry as soon as
// it is in the topic, never from two goroutines at once, and returns the entries that the service
// refuses for their own sake. It returns when all are settled; after the first failure that waiting
// does not mend, or when ctx is done, as soon as the requests under way are.
func (w *writer) publish(ctx context.Context, entries []entry, stored func(at int)) ([]refused, error) {
	if len(entries) == 0 {
		return nil, ctx.Err()
	}
	p := &publishing{writer: w, stop: make(chan struct{}), progress: time.Now(), left: len(entries), stored: stored}
	var (
		slots   = make(chan struct{}, inFlight)
		running sync.WaitGroup
	)
dispatch:
	for _, chain := range chains(entries) {
		select {
		case slots <- struct{}{}:
		case <-p.stop:
			break dispatch
		}
		running.Go(func() {
			defer func() { <-slots }()
			for rest := chain; len(rest) > 0; {
				n := fit(rest)
				if err := p.request(ctx, rest[:n]); err != nil {
					p.fail(err)
					return
				}
				rest = rest[n:]
			}
		})
	}
	running.Wait()
	if p.failure != nil {
		return nil, fmt.Errorf("pubsub: topic %s: %d of %d messages are not published: %w", w.topic, p.left, len(entries), p.failure)
	}
	return p.refused, nil
}

// chains splits entries into what may be sent at once. Entries without an ordering key form requests
// of their own, those with one key a chain in their order.
func chains(entries []entry) [][]entry {
	var (
		out     [][]entry
		unkeyed []entry
		at      map[string]int
	)
	for _, e := range entries {
		key := e.message.OrderingKey
		if key == "" {
			unkeyed = append(unkeyed, e)
			continue
		}
		i, known := at[key]
		if !known {
			if at == nil {
				at = make(map[string]int)
			}
			i = len(out)
			at[key], out = i, append(out, nil)
		}
		out[i] = append(out[i], e)
	}
	for len(unkeyed) > 0 {
		n := fit(unkeyed)
		out, unkeyed = append(out, unkeyed[:n]), unkeyed[n:]
	}
	return out
}

// fit returns how many of entries go into one request.
func fit(entries []entry) int {
	n, size := 0, 0
	for n < len(entries) && n < maxEntries && (n == 0 || size+entries[n].size <= packRequest) {
		size += entries[n].size
		n++
	}
	return n
}

func (p *publishing) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure == nil {
		p.failure = err
		close(p.stop)
	}
}

// request sends one request until it is stored. One that the service calls invalid is halved until the
// message to blame is alone, and that one is refused.
func (p *publishing) request(ctx context.Context, entries []entry) error {
	in := &pb.PublishRequest{Topic: p.topic, Messages: make([]*pb.PubsubMessage, len(entries))}
	for i := range entries {
		in.Messages[i] = entries[i].message
	}
	for n := 1; ; n++ {
		select {
		case <-p.stop:
			return errStopped
		default:
		}
		err := p.call(ctx, in)
		if err == nil {
			p.settle(entries)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch cloud.Classify(err) {
		case cloud.Transient, cloud.Throttled:
		case cloud.Missing:
			return &reason{"it does not exist", err}
		case cloud.Invalid:
			if len(entries) == 1 {
				p.refuse(entries[0].at, cloud.Explain(err).Error())
				return nil
			}
			half := len(entries) / 2
			if err := p.request(ctx, entries[:half]); err != nil {
				return err
			}
			return p.request(ctx, entries[half:])
		default:
			return cloud.Explain(err)
		}
		if p.since() > patience {
			return fmt.Errorf("nothing stored for %s: %w", patience, cloud.Explain(err))
		}
		wait := retry.Backoff(n)
		p.logger.Debug("a request failed: sending it again", "topic", p.topic, "messages", len(entries), "in", wait, "error", err)
		if err := p.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// errStopped ends requests after another has failed; that one's error is returned.
var errStopped = errors.New("stopped")

// sleep waits for d, until ctx is done or another request has failed.
func (p *publishing) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *publishing) call(ctx context.Context, in *pb.PublishRequest) error {
	p.counters.requests.Add(1)
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := p.api.Publish(bounded, in, cloud.Once())
	switch {
	case err == nil && len(out.MessageIds) != len(in.Messages):
		p.counters.ambiguous.Add(1)
		return fmt.Errorf("an answer about %d messages to a request with %d", len(out.MessageIds), len(in.Messages))
	case err == nil:
		return nil
	}
	switch cloud.Classify(err) {
	case cloud.Throttled:
		p.counters.throttled.Add(1)
	case cloud.Transient:
		p.counters.ambiguous.Add(1)
	}
	return err
}

func (p *publishing) settle(entries []entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = time.Now()
	p.left -= len(entries)
	for i := range entries {
		p.stored(entries[i].at)
	}
}

func (p *publishing) refuse(at int, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left--
	p.refused = append(p.refused, refused{at, why})
}

func (p *publishing) since() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.progress)
}
