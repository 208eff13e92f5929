package kinesis

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// maxConsumers is the service's limit of registered consumers a stream.
const maxConsumers = 20

// consumer is a registered enhanced fan-out consumer. Its subscriptions are
// guarded by the stream's lock.
type consumer struct {
	name, arn     string
	created       int64 // Unix milliseconds
	until         int64 // CREATING before that
	subscriptions map[int]*subscription
}

func (co *consumer) status() string {
	if time.Now().UnixMilli() < co.until {
		return statusCreating
	}
	return statusActive
}

type consumerJSON struct {
	ConsumerName, ConsumerARN, ConsumerStatus string
	ConsumerCreationTimestamp                 epoch
	StreamARN                                 string `json:",omitempty"`
}

func (co *consumer) json() consumerJSON {
	return consumerJSON{co.name, co.arn, co.status(), epoch(co.created), ""}
}

func (s *Server) registerStreamConsumer(c *call) error {
	var in struct {
		StreamARN, ConsumerName *string
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	st, err := s.streamOfARN(in.StreamARN, func(v *violations) { v.name(in.ConsumerName, "consumerName", true) })
	if err != nil {
		return err
	}
	if err := s.inState(st, statusActive, statusUpdating); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.consumers[*in.ConsumerName] != nil {
		return failure(codeInUse, "Consumer %s of stream %s under account %s already exists.", *in.ConsumerName, st.name, s.opts.AccountID)
	}
	if len(st.consumers) >= maxConsumers {
		return failure(codeLimitExceeded, "Stream %s under account %s already has %d consumers.", st.name, s.opts.AccountID, maxConsumers)
	}
	co := &consumer{
		name: *in.ConsumerName, created: now, until: now + s.opts.Transition.Milliseconds(),
		arn:           fmt.Sprintf("%s/consumer/%s:%d", st.arn, *in.ConsumerName, now/1000),
		subscriptions: make(map[int]*subscription),
	}
	st.consumers[co.name] = co
	return c.answer(struct{ Consumer consumerJSON }{co.json()})
}

// streamOfARN checks a required stream ARN, and more, and finds the stream.
func (s *Server) streamOfARN(arn *string, more func(*violations)) (*stream, error) {
	var v violations
	if arn == nil {
		v.add(nil, "streamARN", "not be null")
	}
	r := reference{StreamARN: arn}
	r.checkARN(&v)
	more(&v)
	if err := v.err(); err != nil {
		return nil, err
	}
	return s.lookup(r)
}

// consumerReference names a consumer: by its ARN, or by stream and name.
type consumerReference struct {
	StreamARN, ConsumerName, ConsumerARN *string
}

// consumer finds the one a request names.
func (s *Server) consumer(r consumerReference) (*stream, *consumer, error) {
	arn, byARN := r.StreamARN, r.ConsumerARN != nil
	if !byARN && (r.StreamARN == nil || r.ConsumerName == nil) {
		return nil, nil, invalid("Either ConsumerARN or both StreamARN and ConsumerName must be given.")
	}
	name := ""
	if byARN {
		if r.StreamARN != nil || r.ConsumerName != nil {
			return nil, nil, invalid("ConsumerARN cannot be given together with StreamARN and ConsumerName.")
		}
		arn = r.ConsumerARN
		_, rest, _ := strings.Cut(*arn, "/consumer/")
		name, _, _ = strings.Cut(rest, ":")
	} else {
		name = *r.ConsumerName
	}
	st, err := s.streamOfARN(arn, func(*violations) {})
	if err != nil {
		return nil, nil, err
	}
	st.mu.RLock()
	co := st.consumers[name]
	st.mu.RUnlock()
	if co == nil || byARN && co.arn != *r.ConsumerARN {
		return nil, nil, notFound("Consumer %s of stream %s under account %s not found.", name, st.name, s.opts.AccountID)
	}
	return st, co, nil
}

func (s *Server) describeStreamConsumer(c *call) error {
	var in consumerReference
	if err := c.decode(&in); err != nil {
		return err
	}
	st, co, err := s.consumer(in)
	if err != nil {
		return err
	}
	j := co.json()
	j.StreamARN = st.arn
	return c.answer(struct{ ConsumerDescription consumerJSON }{j})
}

func (s *Server) deregisterStreamConsumer(c *call) error {
	var in consumerReference
	if err := c.decode(&in); err != nil {
		return err
	}
	st, co, err := s.consumer(in)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.consumers, co.name)
	for _, sub := range co.subscriptions {
		sub.end()
	}
	return nil
}

func (s *Server) listStreamConsumers(c *call) error {
	var in struct {
		StreamARN, NextToken *string
		MaxResults           *int64
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	st, err := s.streamOfARN(in.StreamARN, func(v *violations) { v.between(in.MaxResults, "maxResults", 1, 10000) })
	if err != nil {
		return err
	}
	after := 0
	if in.NextToken != nil {
		if after, err = strconv.Atoi(*in.NextToken); err != nil || after < 0 {
			return invalid("NextToken is invalid.")
		}
	}
	st.mu.RLock()
	all := make([]consumerJSON, 0, len(st.consumers))
	for _, co := range st.consumers {
		all = append(all, co.json())
	}
	st.mu.RUnlock()
	sort.Slice(all, func(i, j int) bool { return all[i].ConsumerName < all[j].ConsumerName })
	all = all[min(after, len(all)):]
	out := struct {
		Consumers []consumerJSON
		NextToken string `json:",omitempty"`
	}{Consumers: all}
	if most := limit(in.MaxResults, 100); most < len(all) {
		out.Consumers, out.NextToken = all[:most], strconv.Itoa(after+most)
	}
	return c.answer(out)
}
