package kinesis

import (
	"fmt"
	"time"

	"github.com/millstream/millstream/stream"
)

// placeMark begins the token of a position that is not behind a record. Sequence numbers are digits.
const placeMark = "@"

// Behind is the position behind user record subsequence, counted from 0, of the Kinesis record
// sequence, as the Kinesis Client Library's checkpoints are; a plain record is its own user record 0.
func Behind(sequence string, subsequence int64) stream.Position {
	return stream.Position{Token: sequence, Number: subsequence + 1}
}

// Oldest is the position before the oldest record that a shard still holds, whatever Options.Start says.
func Oldest() stream.Position { return stream.Position{Token: placeMark} }

// Since is the position before the first record that arrived at t or later, whatever Options.Start says.
func Since(t time.Time) stream.Position {
	return stream.Position{Token: placeMark + t.UTC().Format(markLayout)}
}

// parsePlace reads what follows the mark: nothing, or a time.
func parsePlace(at string) (time.Time, error) {
	if at == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return t, fmt.Errorf("%q is neither a time nor empty", at)
	}
	return t, nil
}
