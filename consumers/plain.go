package consumers

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/stream"
)

// Metadata of messages in plain mode.
const (
	MetadataPartition = "millstream_partition"
	MetadataPosition  = "millstream_position"
	MetadataKey       = "millstream_key"      // the source's partition key, if the record has one
	MetadataArrived   = "millstream_arrived"  // RFC 3339, if the source says when it received the record
	MetadataOversize  = "millstream_oversize" // the record's length; the payload is only its first 64 KiB
	MetadataError     = "millstream_error"    // why Config.Unmarshal failed; the payload is the raw record
)

// servePlain serves an assignment in plain mode. The merger only keeps the roster.
func (sub *subscription) servePlain(a *stream.Assignment) error {
	if a.Partition == stream.MergerPartition {
		a.Flow = stream.NewFlow(0)
		p := &stream.Pipeline[struct{}, struct{}]{Logger: sub.cfg.Logger}
		return p.Handle(stream.NewBatch(a, 0).Message(sub.ctx))
	}
	p := &plain{sub: sub, a: a, position: resume(a), watermark: a.Start}
	if b := a.Base; b != nil && b.Kind != stream.KindReset {
		p.ledger, p.watermark = b.Ledger, max(p.watermark, b.Watermark)
	}
	p.saved = p.position
	ctx, cancel := a.Context(context.Background())
	defer cancel()
	settled := make(chan struct{})
	defer close(settled)
	err := p.serve(ctx, settled)
	for i := range p.window {
		p.window[i].cancel()
		p.window[i].settle(errUnread)
	}
	p.fetch.settle(len(p.fetch.Records)-len(p.records), len(p.fetch.Records), errUnread)
	if err != nil {
		return fmt.Errorf("partition %s: %w", a.Partition, err)
	}
	return nil
}

// plain delivers the records of one assignment one by one. Its window holds the messages that are
// out, oldest first; the saved position is the end of the acked run at its front.
type plain struct {
	sub       *subscription
	a         *stream.Assignment
	window    []sent
	fetch     Fetch           // the last one
	records   []stream.Record // of it, not yet sent
	next      stream.Position // behind all of them
	end       *stream.PartitionEnd
	state     stream.ReaderState
	position  stream.Position // everything up to here is acked
	saved     stream.Position
	watermark stream.Instant
	ledger    stream.Ledger
	arrived   stream.Instant
	reported  time.Time
}

// sent is a record whose message is out, or is to go out again.
type sent struct {
	record *stream.Record
	m      *message.Message
	cancel context.CancelFunc
	settle func(error)     // tells the source
	next   stream.Position // where to resume once it is acked
}

func (p *plain) serve(ctx context.Context, settled <-chan struct{}) error {
	reading, stop := stopping(ctx, p.a, nil)
	defer stop()
	fetches := p.sub.read(reading, p.a, settled)
	save := time.NewTicker(p.sub.cfg.SaveEvery)
	defer save.Stop()
	var fresh *sent               // made, and not taken by anybody yet
	var again <-chan time.Time    // fires when the nacked head is due
	var out chan *message.Message // set while there is something to send
	for {
		if p.end != nil && len(p.window) == 0 && len(p.records) == 0 {
			return p.finish(ctx)
		}
		in := fetches
		if p.end != nil || len(p.records) > 0 {
			in = nil
		}
		if fresh == nil && again == nil && len(p.window) < p.sub.cfg.MaxUnacked && len(p.records) > 0 {
			s := p.message(&p.records[0])
			fresh = &s
		}
		var acked, nacked <-chan struct{}
		if len(p.window) > 0 && again == nil && !p.isHead(fresh) {
			acked, nacked = p.window[0].m.Acked(), p.window[0].m.Nacked()
		}
		var m *message.Message
		out = nil
		if fresh != nil {
			m, out = fresh.m, p.sub.out
		}
		select {
		case out <- m:
			p.took(*fresh)
			fresh = nil
		case <-acked:
			p.ack()
		case <-nacked:
			p.sub.nacks.Add(1)
			p.window[0].cancel()
			if fresh != nil { // the nacked one goes first
				fresh.cancel()
				fresh = nil
			}
			again = time.After(p.sub.cfg.NackDelay)
		case <-again:
			again = nil
			s := p.message(p.window[0].record)
			s.next, s.settle = p.window[0].next, p.window[0].settle
			fresh = &s
		case f := <-in:
			if f.err != nil {
				return f.err
			}
			p.take(f.Fetch)
		case <-save.C:
			if err := p.save(ctx); err != nil {
				return err
			}
		case <-reading.Done():
			again := again != nil
			if fresh != nil {
				fresh.cancel()
				again = p.isHead(fresh)
			}
			return p.leave(ctx, !again)
		}
	}
}

// isHead reports whether s is a new message of the window's oldest record.
func (p *plain) isHead(s *sent) bool {
	return s != nil && len(p.window) > 0 && p.window[0].record == s.record
}

// took moves a record from the fetch into the window, unless it is there already.
func (p *plain) took(s sent) {
	if p.isHead(&s) {
		p.window[0] = s
		return
	}
	p.records = p.records[1:]
	f, n := p.fetch, len(p.fetch.Records)-len(p.records)
	s.settle = func(err error) { f.settle(n-1, n, err) }
	s.next = s.record.Position
	if len(p.records) == 0 {
		s.next = p.next
	}
	p.window = append(p.window, s)
}

// take accepts a fetch; the one before it has been sent completely.
func (p *plain) take(f Fetch) {
	p.fetch, p.records, p.end, p.state = f, f.Records, f.End, f.State
	if f.Next == (stream.Position{}) {
		return
	}
	p.next = f.Next
	if len(f.Records) > 0 {
		return
	}
	if n := len(p.window); n > 0 {
		p.window[n-1].next = f.Next
	} else {
		p.position = f.Next
	}
}

// ack drops the head of the window.
func (p *plain) ack() {
	head := p.window[0]
	head.cancel()
	head.settle(nil)
	p.window[0] = sent{}
	p.window = p.window[1:]
	p.position = head.next
	p.arrived = max(p.arrived, head.record.Arrived)
	p.ledger.RecordsIn++
	p.ledger.Contributed++
	if now := time.Now(); now.Sub(p.reported) >= 250*time.Millisecond {
		p.report(now)
	}
}

func (p *plain) report(now time.Time) {
	p.reported = now
	p.a.Report(stream.Status{Position: p.position, Watermark: p.watermark, State: p.state, Newest: p.a.Log.Next().Number - 1,
		RecordsIn: p.ledger.RecordsIn, LastArrived: p.arrived, At: now})
}

// save appends what is acked, if that is more than was saved.
func (p *plain) save(ctx context.Context) error {
	if p.position == p.saved {
		return nil
	}
	e := &stream.Entry{Kind: stream.KindCheckpoint, Position: p.position, Watermark: p.watermark, State: p.state, Ledger: p.ledger}
	at := p.position
	if err := p.a.Log.Append(ctx, e); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	p.saved = at
	p.report(time.Now())
	return nil
}

// finish saves the end of a partition whose every record is acked.
func (p *plain) finish(ctx context.Context) error {
	if p.end.Lost {
		p.sub.cfg.Logger.Error("the partition is gone from the source before its end was read: what it still held is lost",
			"partition", p.a.Partition, "position", p.position.String())
	}
	if err := p.save(ctx); err != nil {
		return err
	}
	return p.a.Log.Append(ctx, &stream.Entry{Kind: stream.KindEnd, Position: p.position, Watermark: stream.EndOfTime,
		LastWatermark: p.watermark, Ledger: p.ledger, Children: p.end.Children, Lost: p.end.Lost})
}

// leave waits a while for the acks of what is out, saves, and releases the partition. wait is false
// when the head of the window was nacked: then nothing behind it counts.
func (p *plain) leave(ctx context.Context, wait bool) error {
	if done(p.a.Lost) {
		return p.a.Cause()
	}
	timeout := time.After(p.sub.cfg.CloseTimeout)
	for wait && len(p.window) > 0 {
		select {
		case <-p.window[0].m.Acked():
			p.ack()
		case <-p.window[0].m.Nacked():
			p.sub.nacks.Add(1)
			wait = false
		case <-timeout:
			wait = false
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := p.save(ctx); err != nil {
		return err
	}
	return p.a.Log.Append(ctx, &stream.Entry{Kind: stream.KindRelease})
}

// message makes a new message of a record.
func (p *plain) message(r *stream.Record) sent {
	var m *message.Message
	var err error
	if p.sub.cfg.Unmarshal != nil && r.Refused == nil {
		m, err = p.sub.cfg.Unmarshal(p.a.Partition, r)
	}
	position := r.Position.String()
	if m == nil || err != nil {
		m = message.NewMessage(p.a.Partition+"-"+position, r.Data)
	}
	m.Metadata.Set(MetadataPartition, p.a.Partition)
	m.Metadata.Set(MetadataPosition, position)
	if r.Key != "" {
		m.Metadata.Set(MetadataKey, r.Key)
	}
	if r.Arrived != 0 {
		m.Metadata.Set(MetadataArrived, r.Arrived.String())
	}
	if r.Refused != nil && r.Refused.Length > 0 {
		m.Metadata.Set(MetadataOversize, strconv.FormatInt(r.Refused.Length, 10))
	} else if r.Refused != nil {
		m.Metadata.Set(MetadataError, r.Refused.Detail)
	}
	if err != nil {
		m.Metadata.Set(MetadataError, err.Error())
	}
	ctx, cancel := context.WithCancel(p.sub.ctx)
	m.SetContext(ctx)
	return sent{record: r, m: m, cancel: cancel}
}
