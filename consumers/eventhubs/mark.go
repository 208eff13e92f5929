package eventhubs

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// mark is what a tip says: for each partition of the moment the last sequence number behind which
// "latest" begins, and the last one that is read. -1 stands for a partition that had none. nil says
// nothing about any partition.
type mark struct{ from, until map[string]int64 }

// String writes a mark as from=0:17,1:-1&until=0:17,1:-1.
func (m mark) String() string {
	var parts []string
	for _, side := range []struct {
		name string
		of   map[string]int64
	}{{"from", m.from}, {"until", m.until}} {
		if side.of == nil {
			continue
		}
		var numbers []string
		for _, partition := range sorted(side.of) {
			numbers = append(numbers, url.QueryEscape(partition)+":"+strconv.FormatInt(side.of[partition], 10))
		}
		parts = append(parts, side.name+"="+strings.Join(numbers, ","))
	}
	return strings.Join(parts, "&")
}

func parseMark(tip string) (m mark, err error) {
	if tip == "" {
		return m, nil
	}
	for _, part := range strings.Split(tip, "&") {
		name, text, _ := strings.Cut(part, "=")
		of := make(map[string]int64)
		switch name {
		case "from":
			m.from = of
		case "until":
			m.until = of
		default:
			return mark{}, fmt.Errorf("tip %.100q: want from= and until=", tip)
		}
		if text == "" {
			continue
		}
		for _, pair := range strings.Split(text, ",") {
			escaped, number, _ := strings.Cut(pair, ":")
			partition, err := url.QueryUnescape(escaped)
			if err != nil {
				return mark{}, fmt.Errorf("tip %.100q: %w", tip, err)
			}
			if of[partition], err = strconv.ParseInt(number, 10, 64); err != nil {
				return mark{}, fmt.Errorf("tip %.100q: %w", tip, err)
			}
		}
	}
	return m, nil
}
