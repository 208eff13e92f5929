package pubsub

import (
	"context"
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// pingEvery is how often a stream asks for a sign of life, and pingWithin how long it waits for one.
	// Together they are less than health forgets a failure in, so that a subscription that is cut off
	// does not look like one that has nothing more.
	pingEvery  = 15 * time.Second
	pingWithin = 10 * time.Second
	// protocolVersion is the one from which on the service answers empty requests.
	protocolVersion = 1
)

var errSilent = status.Error(codes.Unavailable, "a stream is silent: its pings are not answered")

// pulse watches over a stream, whose connection may be dead without either side hearing of it. A service
// that has never answered a ping is taken for one that does not.
type pulse struct {
	sub    *subscription
	stream pb.Subscriber_StreamingPullClient

	mu        sync.Mutex // and only one sends at a time
	closed    bool
	asked     time.Time // when the last ping was sent
	listening time.Time // since when the service could be heard; zero: the reader has no room for more
	heard     time.Time // when it was
	silent    bool
}

// listen notes that the next response is waited for.
func (p *pulse) listen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listening = time.Now()
}

// hear notes a response, which is not an answer to a ping when it brings messages.
func (p *pulse) hear(r *pb.StreamingPullResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listening, p.heard = time.Time{}, time.Now()
	if len(r.ReceivedMessages) == 0 {
		p.sub.answers.Store(true)
	}
}

// closeSend tells the service to end the stream.
func (p *pulse) closeSend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.stream.CloseSend()
}

// keep pings until ctx is done, and hangs up when nobody answers.
func (p *pulse) keep(ctx context.Context, hangUp func()) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !p.ping() {
			return
		}
		wait := time.NewTimer(pingWithin)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		if p.lost() {
			hangUp()
			return
		}
	}
}

// ping reports whether the stream can still be asked.
func (p *pulse) ping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.stream.Send(&pb.StreamingPullRequest{}) != nil {
		return false
	}
	p.asked = time.Now()
	return true
}

// lost reports, and notes, that the last ping should have been answered.
func (p *pulse) lost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.silent = p.sub.answers.Load() && p.heard.Before(p.asked) && !p.listening.IsZero() && now.Sub(p.listening) >= pingWithin
	return p.silent
}

// why returns what a stream ended with.
func (p *pulse) why(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent {
		return errSilent
	}
	return err
}
