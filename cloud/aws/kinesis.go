package aws

import (
	"fmt"
	"regexp"
)

var (
	streamName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	streamARN  = regexp.MustCompile(`^arn:[a-z-]+:kinesis:([a-z0-9-]+):[0-9]{12}:stream/([a-zA-Z0-9_.-]{1,128})$`)
)

// KinesisStream is a stream as requests name it.
type KinesisStream struct {
	Name   string
	ARN    *string // nil when the stream was given by name
	Region string  // of the ARN
}

// NameOnly is the name for a request's StreamName: nil when there is an ARN, which then says it all.
func (s *KinesisStream) NameOnly() *string {
	if s.ARN != nil {
		return nil
	}
	return &s.Name
}

// ParseKinesisStream reads a stream's name or ARN.
func ParseKinesisStream(text string) (KinesisStream, error) {
	if m := streamARN.FindStringSubmatch(text); m != nil {
		return KinesisStream{Name: m[2], ARN: &text, Region: m[1]}, nil
	}
	if !streamName.MatchString(text) {
		return KinesisStream{}, fmt.Errorf("stream %q: want a name of at most 128 letters, digits, _ . and -, or a stream's ARN", text)
	}
	return KinesisStream{Name: text}, nil
}
