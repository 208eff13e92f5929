package sinks

import (
	"encoding/json"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Envelope marshals a message with its UUID and metadata, as
//
//	{"uuid":"…","metadata":{…},"payload":"<base64>"}
//
// which consumers.OpenEnvelope reads back.
func Envelope(m *message.Message) ([]byte, error) {
	return json.Marshal(struct {
		UUID     string           `json:"uuid"`
		Metadata message.Metadata `json:"metadata,omitempty"`
		Payload  []byte           `json:"payload"`
	}{m.UUID, m.Metadata, m.Payload})
}
