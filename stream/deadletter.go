package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Reasons of dead letters that the engine itself gives. A Require error's text is its reason, unless
// the error implements Reasoned.
const (
	ReasonUndecodable = "undecodable"
	ReasonNoKey       = "no key"
	ReasonNoTime      = "no event time"
	ReasonFuture      = "event time in the future"
	ReasonLate        = "late"
	ReasonOversize    = "too large"
	ReasonEncode      = "result cannot be encoded"
	ReasonRejected    = "rejected by the sink"
)

// Reasoned is an error that knows a short reason under which its dead letters are counted.
type Reasoned interface {
	error
	Reason() string
}

// DeadLetter is what is written for a record, or for a row, that could not be used.
type DeadLetter struct {
	Reason    string `json:"reason"`
	Stage     string `json:"stage"` // decode, require, window, encode, sink
	Source    string `json:"source"`
	Partition string `json:"partition"`
	Position  string `json:"position"`
	EventTime string `json:"event_time,omitempty"` // RFC 3339, when it was known
	Error     string `json:"error,omitempty"`
	Attempts  int    `json:"attempts"`
	Length    int64  `json:"length,omitempty"` // of the record, when raw is only its beginning
	Raw       []byte `json:"raw"`              // base64 in JSON
}

const maxErrorText = 1024

func (d *DeadLetter) row() Row {
	if len(d.Error) > maxErrorText {
		d.Error = d.Error[:maxErrorText]
		for !utf8.ValidString(d.Error) && len(d.Error) > 0 {
			d.Error = d.Error[:len(d.Error)-1]
		}
		d.Error += "…"
	}
	d.Attempts = max(d.Attempts, 1)
	data, err := json.Marshal(d)
	if err != nil { // strings and bytes always marshal
		panic(fmt.Sprintf("dead letter: %v", err))
	}
	return Row{Key: d.Partition, Data: data}
}

// shortened is a letter with at most so many bytes of its record.
func shortened(r Row, most int) Row {
	var d DeadLetter
	if json.Unmarshal(r.Data, &d) != nil {
		return r
	}
	if len(d.Raw) > most {
		d.Length = max(d.Length, int64(len(d.Raw)))
		d.Raw = d.Raw[:most]
	}
	r.Data = d.row().Data
	return r
}

// decodeReason sorts a decoding error under one of the engine's reasons.
func decodeReason(err error) string {
	var r Reasoned
	switch {
	case errors.As(err, &r):
		return r.Reason()
	case errors.Is(err, ErrNoKey):
		return ReasonNoKey
	case errors.Is(err, ErrNoTime):
		return ReasonNoTime
	}
	return ReasonUndecodable
}

// requireReason is the reason of a failed requirement.
func requireReason(err error) string {
	var r Reasoned
	if errors.As(err, &r) {
		return r.Reason()
	}
	s := err.Error()
	if len(s) > 256 {
		s = s[:256]
	}
	return s
}

// sourceName is what dead letters call the source.
func (a *Assignment) sourceName() string {
	if s, ok := a.Source.(interface{ Identity() string }); ok {
		return s.Identity()
	}
	return ""
}
