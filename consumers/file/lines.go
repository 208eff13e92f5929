package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	unlimited = math.MaxInt64
	// bufferSize is what one read asks for. Records point into the buffer, so it lives as long as
	// the last of them.
	bufferSize = 512 << 10
	// rateStep is the shortest pause of a reader with a rate.
	rateStep = 10 * time.Millisecond
	// maxBackoff bounds the pause between two looks at the end of a file.
	minBackoff, maxBackoff = 5 * time.Millisecond, 250 * time.Millisecond
)

// input is where lines get their bytes.
type input interface {
	// read fills p with at least one byte, or returns io.EOF when nothing is there now. It may return
	// before p is full; short says that nothing follows at the moment.
	read(ctx context.Context, p []byte) (n int, short bool, err error)
	// follow reports, at io.EOF, whether more may come.
	follow() (bool, error)
	// wait returns when there may be more, or d has passed.
	wait(ctx context.Context, d time.Duration) error
	close() error
}

// lines is a consumers.Reader: it cuts an input into records that point into its buffer. A buffer
// is filled once, from its beginning to its end; the unfinished line at its end moves on to the next
// one.
type lines struct {
	in    input
	limit int // longest line
	end   int64
	at    int64 // position: everything before it has been returned

	buf  []byte
	from int // buf[from:to] is read and not returned
	to   int

	mark  string // of the bytes before at; see markOf
	skip  int64  // > 0: bytes seen of a line that is too long
	head  []byte // its beginning
	cr    bool   // the last of those bytes is a CR
	short bool   // the input had no more at the last read
	state stream.ReaderState
	most  int // records of the largest fetch lately: the next one's capacity

	rate     int
	start    time.Time // from when on records are due
	returned int64     // since start
}

func newLines(in input, from stream.Position, end int64, rate int) *lines {
	return &lines{in: in, limit: MaxRecord, at: from.Number, mark: from.Token, end: end, rate: rate}
}

// next is the position of the next fetch.
func (l *lines) next() stream.Position { return stream.Position{Token: l.mark, Number: l.at} }

// Read implements consumers.Reader.
func (l *lines) Read(ctx context.Context) (consumers.Fetch, error) {
	allowed := math.MaxInt
	if l.rate > 0 {
		var err error
		if allowed, err = l.pace(ctx); err != nil {
			return consumers.Fetch{}, err
		}
	}
	backoff := minBackoff
	for {
		if err := ctx.Err(); err != nil {
			return consumers.Fetch{}, context.Cause(ctx)
		}
		before := l.at
		records := l.cut(allowed)
		if len(records) > 0 {
			l.returned += int64(len(records))
			l.state = stream.Reading
			if l.short && l.from == l.to {
				l.state = stream.CaughtUp
			}
			return consumers.Fetch{Records: records, Next: l.next(), State: l.state}, nil
		}
		n, err := l.fill(ctx)
		switch {
		case errors.Is(err, io.EOF):
			more, err := l.in.follow()
			if err != nil {
				return consumers.Fetch{}, err
			}
			if !more {
				return l.last(), nil
			}
			if l.state != stream.CaughtUp || l.at != before {
				l.state = stream.CaughtUp
				return consumers.Fetch{Next: l.next(), State: l.state}, nil
			}
			if err := l.in.wait(ctx, backoff); err != nil {
				return consumers.Fetch{}, err
			}
			backoff = min(2*backoff, maxBackoff)
		case err != nil:
			return consumers.Fetch{}, err
		case n > 0:
			backoff = minBackoff
		}
	}
}

// cut takes at most that many complete lines off the buffer.
func (l *lines) cut(allowed int) []stream.Record {
	var records []stream.Record
	before := l.at
	for len(records) < allowed {
		i := bytes.IndexByte(l.buf[l.from:l.to], '\n')
		if i < 0 {
			break
		}
		line := l.buf[l.from : l.from+i : l.from+i]
		l.from += i + 1
		l.at += int64(i + 1)
		if l.skip > 0 {
			l.at += l.skip
			records = append(records, l.oversize(line))
			continue
		}
		if i > 0 && line[i-1] == '\r' {
			line = line[: i-1 : i-1]
		}
		if len(line) == 0 {
			continue
		}
		if records == nil {
			records = make([]stream.Record, 0, max(l.most, 1))
		}
		records = append(records, l.record(line))
	}
	if l.at > before {
		l.mark = markOf(l.buf[:l.from])
	}
	if len(records) > 0 { // a little more than last time; one long fetch must not make all later ones wide
		l.most = max(len(records)+len(records)/8, l.most-l.most/8)
	}
	return records
}

// record is a line as a record, its position being where reading stands now.
func (l *lines) record(line []byte) stream.Record {
	r := stream.Record{Data: line, Position: stream.Position{Number: l.at}}
	if len(line) > l.limit {
		r.Data, r.Refused = bytes.Clone(line[:min(len(line), OversizeKept)]), stream.TooLarge(int64(len(line)))
	}
	return r
}

// oversize ends a line that was too long for the buffer; rest is what came last of it.
func (l *lines) oversize(rest []byte) stream.Record {
	length := l.skip + int64(len(rest))
	if len(rest) > 0 && rest[len(rest)-1] == '\r' || len(rest) == 0 && l.cr {
		length--
	}
	r := stream.Record{Data: l.head[:min(int64(len(l.head)), length)], Position: stream.Position{Number: l.at}, Refused: stream.TooLarge(length)}
	l.skip, l.head, l.cr = 0, nil, false
	return r
}

// fill reads more behind the unfinished line, in a new buffer when there is no room.
func (l *lines) fill(ctx context.Context) (int, error) {
	if l.skip > 0 || l.to-l.from > l.limit+1 { // one more for CR
		if l.skip == 0 {
			l.head = bytes.Clone(l.buf[l.from : l.from+min(OversizeKept, l.to-l.from)])
		}
		// What is skipped belongs to no record: its place is used again.
		if l.to > l.from {
			l.cr = l.buf[l.to-1] == '\r'
		}
		l.skip += int64(l.to - l.from)
		l.to = l.from
		if l.from > 0 || len(l.buf) > bufferSize {
			l.buf, l.from, l.to = make([]byte, bufferSize), 0, 0
		}
	}
	if l.to == len(l.buf) {
		size := bufferSize
		if rest := l.to - l.from; 2*rest > size {
			size = min(2*rest, l.limit+2+bufferSize)
		}
		buf := make([]byte, size)
		l.to = copy(buf, l.buf[l.from:l.to])
		l.buf, l.from = buf, 0
	}
	room := l.buf[l.to:]
	if left := l.end - l.at - l.skip - int64(l.to-l.from); left < int64(len(room)) {
		room = room[:left]
	}
	if len(room) == 0 {
		l.short = true
		return 0, io.EOF
	}
	n, short, err := l.in.read(ctx, room)
	l.to += n
	l.short = short
	return n, err
}

// last returns the end, with what is left of a last line that nobody finished.
func (l *lines) last() consumers.Fetch {
	f := consumers.Fetch{End: &stream.PartitionEnd{}, State: stream.CaughtUp}
	if line := l.buf[l.from:l.to:l.to]; l.skip > 0 || len(line) > 0 {
		l.from = l.to
		l.at += l.skip + int64(len(line))
		l.mark = markOf(l.buf[:l.from])
		if l.skip > 0 {
			f.Records = append(f.Records, l.oversize(line))
		} else if line = bytes.TrimSuffix(line, []byte("\r")); len(line) > 0 {
			f.Records = append(f.Records, l.record(line))
		}
	}
	f.Next = l.next()
	return f
}

// pace waits until records are due and returns how many. Time that nobody used is not caught up
// beyond one second.
func (l *lines) pace(ctx context.Context) (int, error) {
	if l.start.IsZero() {
		l.start = time.Now()
	}
	for {
		now := time.Now()
		due := int64(now.Sub(l.start).Seconds()*float64(l.rate)) + 1 - l.returned
		if due > int64(l.rate) {
			l.start, l.returned = now, 0
			due = 1
		}
		if due > 0 {
			return int(due), nil
		}
		if err := pause(ctx, max(rateStep, time.Second/time.Duration(l.rate))); err != nil {
			return 0, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close implements consumers.Reader.
func (l *lines) Close() error { return l.in.close() }
