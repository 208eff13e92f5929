package kinesis

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// A consumer may take a shard over from itself this long after it last
	// subscribed.
	resubscribeAfter = 5 * time.Second
	// An idle subscription gets an event without records this often.
	heartbeat     = 5 * time.Second
	maxEventBytes = 1 << 20
)

// subscription is a running SubscribeToShard call.
type subscription struct {
	started time.Time
	stopped chan struct{}
	once    sync.Once
}

func (sub *subscription) end() { sub.once.Do(func() { close(sub.stopped) }) }

func (s *Server) subscribeToShard(c *call) error {
	var in struct {
		ConsumerARN      *string
		ShardID          *string `json:"ShardId"`
		StartingPosition *struct {
			Type           string
			SequenceNumber *string
			Timestamp      *epoch
		}
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	if in.ConsumerARN == nil {
		v.add(nil, "consumerARN", "not be null")
	}
	v.name(in.ShardID, "shardId", true)
	if in.StartingPosition == nil {
		v.add(nil, "startingPosition", "not be null")
	} else {
		checkPosition(&v, in.StartingPosition.Type, "startingPosition.type")
		v.digits(in.StartingPosition.SequenceNumber, "startingPosition.sequenceNumber", 129)
	}
	if err := v.err(); err != nil {
		return err
	}
	st, co, err := s.consumer(consumerReference{ConsumerARN: in.ConsumerARN})
	if err != nil {
		return err
	}
	if co.status() != statusActive {
		return failure(codeInUse, "Consumer %s is not ACTIVE.", co.name)
	}
	sh, err := s.shard(st, *in.ShardID)
	if err != nil {
		return err
	}
	p := in.StartingPosition
	next, err := s.position(sh, p.Type, p.SequenceNumber, p.Timestamp)
	if err != nil {
		return err
	}
	sub := &subscription{started: time.Now(), stopped: make(chan struct{})}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.consumers[co.name] != co {
		return notFound("Consumer %s of stream %s under account %s not found.", co.name, st.name, s.opts.AccountID)
	}
	if old := co.subscriptions[sh.index]; old != nil {
		if sub.started.Sub(old.started) < resubscribeAfter {
			return failure(codeInUse, "Another active subscription exists for this consumer: %s:%s:%s.", s.opts.AccountID, st.name, sh.id)
		}
		old.end()
	}
	co.subscriptions[sh.index] = sub
	c.stream = func(w http.ResponseWriter) error {
		defer func() {
			st.mu.Lock()
			if co.subscriptions[sh.index] == sub {
				delete(co.subscriptions, sh.index)
			}
			st.mu.Unlock()
		}()
		return s.push(c, w, sh, next, sub)
	}
	return nil
}

var errCut = errors.New("cut by a fault")

// push sends the shard's records as events until the shard ends, the
// subscription's time is over, or either side hangs up.
func (s *Server) push(c *call, w http.ResponseWriter, sh *shard, next uint64, sub *subscription) error {
	flush := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	send := func(kind string, payload []byte) error {
		if _, err := w.Write(appendEvent(nil, kind, payload)); err != nil {
			return err
		}
		return flush.Flush()
	}
	if err := send("initial-response", []byte("{}")); err != nil {
		return err
	}
	over := time.NewTimer(s.opts.SubscriptionLifetime)
	defer over.Stop()
	var rate bucket
	for {
		idle := time.NewTimer(heartbeat)
		changed := sh.changed(next)
		if changed == nil {
			changed = ready
		}
		if s.opts.EnforceLimits && !rate.has(time.Now(), shardReadBytes, 1) {
			changed = nil // the heartbeat comes before the debt is paid, at worst
			idle.Reset(time.Duration((1 - rate.level) / shardReadBytes * float64(time.Second)))
		}
		select {
		case <-changed:
		case <-idle.C:
		case <-over.C:
			return nil
		case <-sub.stopped:
			return nil
		case <-s.done:
			return nil
		case <-c.ctx.Done():
			return nil
		}
		idle.Stop()
		p := sh.read(append(c.reply[:0], `{"Records":`...), next, maxGetRecords, maxEventBytes)
		rate.pay(float64(p.bytes))
		next = p.next
		c.reply = append(p.json, `,"MillisBehindLatest":`...)
		c.reply = strconv.AppendInt(c.reply, p.behind, 10)
		if p.end {
			c.reply = sh.appendChildren(append(c.reply, ','))
		} else {
			c.reply = append(c.reply, `,"ContinuationSequenceNumber":"`...)
			c.reply = sh.starting.at(next - 1).append(c.reply)
			c.reply = append(c.reply, '"')
		}
		c.reply = append(c.reply, '}')
		if err := send("SubscribeToShardEvent", c.reply); err != nil {
			return err
		}
		if c.fault.CutReply {
			return errCut
		}
		if p.end {
			return nil
		}
	}
}

// ready is always closed.
var ready = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// appendEvent frames a message of the AWS event stream encoding: total length,
// length of the headers, CRC-32 of those eight bytes; headers, each a name and a
// string (type 7); payload; CRC-32 of everything before.
func appendEvent(dst []byte, kind string, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, 12)...)
	for _, h := range [...][2]string{
		{":message-type", "event"}, {":event-type", kind}, {":content-type", contentType},
	} {
		dst = append(dst, byte(len(h[0])))
		dst = append(dst, h[0]...)
		dst = append(dst, 7)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(h[1])))
		dst = append(dst, h[1]...)
	}
	headers := len(dst) - start - 12
	dst = append(dst, payload...)
	prelude := dst[start : start+12]
	binary.BigEndian.PutUint32(prelude, uint32(len(dst)-start+4))
	binary.BigEndian.PutUint32(prelude[4:], uint32(headers))
	binary.BigEndian.PutUint32(prelude[8:], crc32.ChecksumIEEE(prelude[:8]))
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[start:]))
}
