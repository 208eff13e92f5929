package consumers

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/stream"
)

// OpenEnvelope is a Config.Unmarshal for records that sinks.Envelope made:
//
//	{"uuid":"…","metadata":{…},"payload":"<base64>"}
//
// Anything else is an error.
func OpenEnvelope(_ string, r *stream.Record) (*message.Message, error) {
	var e struct {
		UUID     *string          `json:"uuid"`
		Metadata message.Metadata `json:"metadata"`
		Payload  []byte           `json:"payload"`
	}
	if err := json.Unmarshal(r.Data, &e); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if e.UUID == nil {
		return nil, errors.New("envelope: no uuid")
	}
	m := message.NewMessage(*e.UUID, e.Payload)
	if e.Metadata != nil {
		m.Metadata = e.Metadata
	}
	return m, nil
}
