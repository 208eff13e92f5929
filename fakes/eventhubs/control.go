package eventhubs

import "time"

// Event is one event as it stands in a partition.
type Event struct {
	Sequence int64
	Offset   string
	Enqueued time.Time
	Key      string // the partition key, empty when there is none
	Data     []byte
}

// Counts says what the server has met since it was started.
type Counts struct {
	Connections  int `json:"connections"`  // accepted
	Attached     int `json:"attached"`     // readers
	Stolen       int `json:"stolen"`       // readers that one of a higher owner level put out
	Refused      int `json:"refused"`      // links, for any reason
	Throttled    int `json:"throttled"`    // links, sends and questions answered with server-busy
	Silenced     int `json:"silenced"`     // readers
	Disconnected int `json:"disconnected"` // connections broken on demand
	Batches      int `json:"batches"`      // messages that senders sent
	Events       int `json:"events"`       // stored
	LostReplies  int `json:"lost_replies"` // batches stored without saying so
	Management   int `json:"management"`   // questions asked
}

// CreateHub makes a hub with partitions "0", "1", …; the consumer group $Default is always there.
func (s *Server) CreateHub(hub string, partitions int, groups ...string) error {
	return s.call(nil, "create", map[string]any{"hub": hub, "partitions": partitions, "groups": groups})
}

// RemoveHub deletes a hub under its readers and writers.
func (s *Server) RemoveHub(hub string) error {
	return s.call(nil, "remove", map[string]any{"hub": hub})
}

// Grow adds partitions until there are as many as given.
func (s *Server) Grow(hub string, partitions int) error {
	return s.call(nil, "grow", map[string]any{"hub": hub, "partitions": partitions})
}

// Publish appends events to a partition, in order, or where their key leads when partition is empty.
func (s *Server) Publish(hub, partition, key string, data ...[]byte) error {
	return s.call(nil, "publish", map[string]any{"hub": hub, "partition": partition, "key": key, "data": data})
}

// Fill appends count events, those given over and over again.
func (s *Server) Fill(hub, partition string, count int, data ...[]byte) error {
	return s.call(nil, "fill", map[string]any{"hub": hub, "partition": partition, "count": count, "data": data})
}

// Events returns what a partition holds.
func (s *Server) Events(hub, partition string) ([]Event, error) {
	var found []struct {
		Sequence int64
		Offset   string
		Enqueued int64
		Key      string
		Data     []byte
	}
	if err := s.call(&found, "events", map[string]any{"hub": hub, "partition": partition}); err != nil {
		return nil, err
	}
	events := make([]Event, len(found))
	for i, e := range found {
		events[i] = Event{e.Sequence, e.Offset, time.UnixMilli(e.Enqueued), e.Key, e.Data}
	}
	return events, nil
}

// Trim drops the events of a partition whose sequence numbers are below before, as retention does.
func (s *Server) Trim(hub, partition string, before int64) error {
	return s.call(nil, "trim", map[string]any{"hub": hub, "partition": partition, "sequence": before})
}

// Disconnect breaks the connections of a hub's readers and returns how many there were.
func (s *Server) Disconnect(hub string) (n int, err error) {
	err = s.call(&n, "disconnect", map[string]any{"hub": hub})
	return n, err
}

// Silence makes the readers that a partition has now, or those of all partitions when it is empty,
// receive nothing any more, and returns how many there were. Readers that come later are served.
func (s *Server) Silence(hub, partition string) (n int, err error) {
	err = s.call(&n, "silence", map[string]any{"hub": hub, "partition": partition})
	return n, err
}

// Throttle closes the readers of a partition, or of all when it is empty, and refuses new ones and
// questions about the hub with server-busy until it is switched off.
func (s *Server) Throttle(hub, partition string, on bool) error {
	return s.call(nil, "throttle", map[string]any{"hub": hub, "partition": partition, "on": on})
}

// Busy refuses what is sent to a hub with server-busy until it is switched off.
func (s *Server) Busy(hub string, on bool) error {
	return s.call(nil, "busy", map[string]any{"hub": hub, "on": on})
}

// LoseReplies breaks the connection, instead of answering, for the next n batches sent to a hub. They
// are stored.
func (s *Server) LoseReplies(hub string, n int) error {
	return s.call(nil, "lose_replies", map[string]any{"hub": hub, "count": n})
}

// RefuseTokens answers tokens with 401 until it is switched off.
func (s *Server) RefuseTokens(on bool) error {
	return s.call(nil, "refuse_tokens", map[string]any{"on": on})
}

// HangManagement leaves questions about hubs and partitions without answer until it is switched off.
func (s *Server) HangManagement(on bool) error {
	return s.call(nil, "hang_management", map[string]any{"on": on})
}

// Readers returns how many readers a partition has now, or all of them when it is empty.
func (s *Server) Readers(hub, partition string) (n int, err error) {
	err = s.call(&n, "readers", map[string]any{"hub": hub, "partition": partition})
	return n, err
}

// Counts returns what has been met so far.
func (s *Server) Counts() (c Counts, err error) {
	err = s.call(&c, "counts", nil)
	return c, err
}
