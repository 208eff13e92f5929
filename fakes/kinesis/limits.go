package kinesis

import "time"

// bucket is a token bucket that may go into debt: a call is admitted while there
// is something left and then pays what it used, so one that used several
// seconds' worth blocks the following ones that long. It starts full.
type bucket struct {
	level float64
	last  time.Time
}

// has reports whether need tokens are there. burst tokens fit in, and as many
// flow in each second.
func (b *bucket) has(now time.Time, burst, need float64) bool {
	if b.last.IsZero() {
		b.level = burst
	} else {
		b.level = min(burst, b.level+burst*max(0, now.Sub(b.last).Seconds()))
	}
	b.last = now
	return b.level > need-1e-6 // rounding must not cost a token
}

func (b *bucket) pay(tokens float64) { b.level -= tokens }

// The service's limits per shard and second (Kinesis Data Streams quotas).
const (
	shardReadCalls    = 5
	shardReadBytes    = 2 << 20
	shardWriteRecords = 1000
	shardWriteBytes   = 1 << 20
)

// admitRead pays for one GetRecords call, or refuses it.
func (sh *shard) admitRead(now time.Time) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !sh.out.has(now, shardReadBytes, 1) || !sh.calls.has(now, shardReadCalls, 1) {
		return false
	}
	sh.calls.pay(1)
	return true
}

// payRead charges what a GetRecords call returned.
func (sh *shard) payRead(bytes int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.out.pay(float64(bytes))
}

// admitWrite pays for one record, or refuses it. A record larger than a second's
// worth passes when the shard has been idle, and is paid for afterwards.
func (sh *shard) admitWrite(now time.Time, bytes int) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	need := min(float64(bytes), shardWriteBytes)
	if !sh.inCount.has(now, shardWriteRecords, 1) || !sh.in.has(now, shardWriteBytes, need) {
		return false
	}
	sh.inCount.pay(1)
	sh.in.pay(float64(bytes))
	return true
}
