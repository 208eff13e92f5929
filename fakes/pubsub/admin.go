package pubsub

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// publisher answers the Publisher service.
type publisher struct {
	pb.UnimplementedPublisherServer
	*Server
}

// topic knows its subscriptions.
type topic struct {
	config *pb.Topic

	mu   sync.Mutex
	subs []*subscription // replaced, never changed
}

func (t *topic) list() []*subscription {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.subs
}

// deletedTopic is the topic of subscriptions that have lost theirs.
const deletedTopic = "_deleted-topic_"

var (
	empty = &emptypb.Empty{}

	topicName        = regexp.MustCompile(`^projects/[^/]+/topics/[a-zA-Z][a-zA-Z0-9._~%+-]{2,254}$`)
	subscriptionName = regexp.MustCompile(`^projects/[^/]+/subscriptions/[a-zA-Z][a-zA-Z0-9._~%+-]{2,254}$`)
)

func checkName(name, kind string, pattern *regexp.Regexp) error {
	if !pattern.MatchString(name) || strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], "goog") {
		return invalid("Invalid [%ss] name: (name=%.300s)", kind, name)
	}
	return nil
}

func notFound(kind, name string) error {
	return status.Errorf(codes.NotFound, "Resource not found (resource=%s): no such %s.", name[strings.LastIndexByte(name, '/')+1:], kind)
}

func (s *Server) topic(name string) (*topic, error) {
	if err := checkName(name, "topic", topicName); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.topics[name]; t != nil {
		return t, nil
	}
	return nil, notFound("topic", name)
}

func (s *Server) subscription(name string) (*subscription, error) {
	if err := checkName(name, "subscription", subscriptionName); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sub := s.subscriptions[name]; sub != nil {
		return sub, nil
	}
	return nil, notFound("subscription", name)
}

// Publish stores messages.
func (p *publisher) Publish(_ context.Context, in *pb.PublishRequest) (*pb.PublishResponse, error) {
	return p.publish(in)
}

// CreateTopic creates a topic.
func (p *publisher) CreateTopic(_ context.Context, in *pb.Topic) (*pb.Topic, error) {
	if err := checkName(in.Name, "topic", topicName); err != nil {
		return nil, err
	}
	config := proto.Clone(in).(*pb.Topic)
	config.State = pb.Topic_ACTIVE
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.topics[in.Name] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", in.Name)
	}
	p.topics[in.Name] = &topic{config: config}
	return config, nil
}

// GetTopic returns a topic.
func (p *publisher) GetTopic(_ context.Context, in *pb.GetTopicRequest) (*pb.Topic, error) {
	t, err := p.topic(in.Topic)
	if err != nil {
		return nil, err
	}
	return t.config, nil
}

// ListTopics returns a project's topics, a page at a time.
func (p *publisher) ListTopics(_ context.Context, in *pb.ListTopicsRequest) (*pb.ListTopicsResponse, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	names, next := page(sorted(p.topics), in.Project+"/topics/", in.PageToken, in.PageSize)
	out := &pb.ListTopicsResponse{NextPageToken: next}
	for _, name := range names {
		out.Topics = append(out.Topics, p.topics[name].config)
	}
	return out, nil
}

// ListTopicSubscriptions returns the names of a topic's subscriptions, a page at a time.
func (p *publisher) ListTopicSubscriptions(_ context.Context, in *pb.ListTopicSubscriptionsRequest) (*pb.ListTopicSubscriptionsResponse, error) {
	t, err := p.topic(in.Topic)
	if err != nil {
		return nil, err
	}
	all := make(map[string]bool)
	for _, sub := range t.list() {
		all[sub.name] = true
	}
	names, next := page(sorted(all), "", in.PageToken, in.PageSize)
	return &pb.ListTopicSubscriptionsResponse{Subscriptions: names, NextPageToken: next}, nil
}

// DeleteTopic deletes a topic. Its subscriptions stay, and keep what they hold.
func (p *publisher) DeleteTopic(_ context.Context, in *pb.DeleteTopicRequest) (*emptypb.Empty, error) {
	t, err := p.topic(in.Topic)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	delete(p.topics, in.Topic)
	p.mu.Unlock()
	for _, sub := range t.list() {
		sub.change(func(c *pb.Subscription) { c.Topic = deletedTopic })
	}
	return empty, nil
}

// page returns the names with a prefix that follow token, at most size, and the token of the next page.
func page(names []string, prefix, token string, size int32) (some []string, next string) {
	if size <= 0 || size > 1000 {
		size = 1000
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) || name <= token {
			continue
		}
		if len(some) == int(size) {
			return some, some[size-1]
		}
		some = append(some, name)
	}
	return some, ""
}

// CreateSubscription creates a subscription, which gets what is published from now on.
func (s *subscriber) CreateSubscription(_ context.Context, in *pb.Subscription) (*pb.Subscription, error) {
	if err := checkName(in.Name, "subscription", subscriptionName); err != nil {
		return nil, err
	}
	config := proto.Clone(in).(*pb.Subscription)
	config.State = pb.Subscription_ACTIVE
	if config.AckDeadlineSeconds == 0 {
		config.AckDeadlineSeconds = int32(minDeadline / time.Second)
	}
	if d := time.Duration(config.AckDeadlineSeconds) * time.Second; d < minDeadline || d > maxDeadline {
		return nil, invalid("ack_deadline_seconds is %d: want 10 to 600.", config.AckDeadlineSeconds)
	}
	if config.PushConfig.GetPushEndpoint() != "" || config.BigqueryConfig != nil || config.CloudStorageConfig != nil || config.DeadLetterPolicy != nil {
		return nil, status.Error(codes.Unimplemented, "This fake has neither push, BigQuery and Cloud Storage subscriptions nor dead-letter policies.")
	}
	matches, err := parseFilter(config.Filter)
	if err != nil {
		return nil, invalid("Invalid filter: %v.", err)
	}
	t, err := s.topic(in.Topic)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscriptions[in.Name] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", in.Name)
	}
	s.serial++
	sub := &subscription{server: s.Server, name: in.Name, serial: s.serial, topic: t, config: config, filter: matches, keys: make(map[string]*key)}
	s.subscriptions[in.Name] = sub
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = append(t.subs[:len(t.subs):len(t.subs)], sub)
	return config, nil
}

// change replaces the configuration by a changed copy, and returns it.
func (s *subscription) change(how func(*pb.Subscription)) *pb.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := proto.Clone(s.config).(*pb.Subscription)
	how(config)
	s.config = config
	return config
}

// GetSubscription returns a subscription.
func (s *subscriber) GetSubscription(_ context.Context, in *pb.GetSubscriptionRequest) (*pb.Subscription, error) {
	sub, err := s.subscription(in.Subscription)
	if err != nil {
		return nil, err
	}
	return sub.change(func(*pb.Subscription) {}), nil
}

// UpdateSubscription changes the ack deadline, the retry policy or exactly-once delivery.
func (s *subscriber) UpdateSubscription(_ context.Context, in *pb.UpdateSubscriptionRequest) (*pb.Subscription, error) {
	sub, err := s.subscription(in.GetSubscription().GetName())
	if err != nil {
		return nil, err
	}
	paths := in.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, invalid("The update_mask in the UpdateSubscriptionRequest must be set, and must contain a non-empty paths list.")
	}
	for _, path := range paths {
		switch path {
		case "ack_deadline_seconds":
			if n := in.Subscription.AckDeadlineSeconds; n < 10 || n > 600 {
				return nil, invalid("ack_deadline_seconds is %d: want 10 to 600.", n)
			}
		case "retry_policy", "enable_exactly_once_delivery":
		default:
			return nil, status.Errorf(codes.Unimplemented, "This fake cannot change %s.", path)
		}
	}
	return sub.change(func(c *pb.Subscription) {
		for _, path := range paths {
			switch path {
			case "ack_deadline_seconds":
				c.AckDeadlineSeconds = in.Subscription.AckDeadlineSeconds
			case "retry_policy":
				c.RetryPolicy = in.Subscription.RetryPolicy
			case "enable_exactly_once_delivery":
				c.EnableExactlyOnceDelivery = in.Subscription.EnableExactlyOnceDelivery
			}
		}
	}), nil
}

// ListSubscriptions returns a project's subscriptions, a page at a time.
func (s *subscriber) ListSubscriptions(_ context.Context, in *pb.ListSubscriptionsRequest) (*pb.ListSubscriptionsResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names, next := page(sorted(s.subscriptions), in.Project+"/subscriptions/", in.PageToken, in.PageSize)
	out := &pb.ListSubscriptionsResponse{NextPageToken: next}
	for _, name := range names {
		out.Subscriptions = append(out.Subscriptions, s.subscriptions[name].change(func(*pb.Subscription) {}))
	}
	return out, nil
}

// DeleteSubscription deletes a subscription with all it holds, and ends its streams.
func (s *subscriber) DeleteSubscription(_ context.Context, in *pb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	sub, err := s.subscription(in.Subscription)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.subscriptions, in.Subscription)
	s.mu.Unlock()
	sub.topic.remove(sub)
	sub.close()
	return empty, nil
}

func (t *topic) remove(sub *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var left []*subscription
	for _, other := range t.subs {
		if other != sub {
			left = append(left, other)
		}
	}
	t.subs = left
}
