package enrich

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
)

func lower(text string) (string, bool) { return strings.ToLower(text), text != "" }

func TestCollector(t *testing.T) {
	c := NewCollector([]string{"A", "a", "", "b", "a", "twice", "large", "bad", "absent"}, lower, false)
	if got := strings.Join(c.Values(), " "); got != "a b twice large bad absent" {
		t.Errorf("asks for %s", got)
	}
	why := errors.New("why")
	add := func() {
		for _, value := range []string{"a", "b", "twice", "twice", "twice", "bad", "nobody's"} {
			var err error
			if value == "bad" {
				err = why
			}
			if err := c.Add(value, Row{JSON: []byte("{}")}, err); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Add("large", Row{JSON: make([]byte, MaxRow+1)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	add()
	c.Reset()
	add() // without the Reset each would have two rows
	if c.Wants("nobody's") || c.Wants("twice") || c.Wants("bad") || !c.Wants("absent") || !c.Wants("a") {
		t.Error("wants the wrong rows")
	}
	found, err := c.Answer()
	var failed *Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 3 || !errors.Is(failed.Keys["twice"], ErrMalformed) || !errors.Is(failed.Keys["large"], ErrMalformed) || !errors.Is(failed.Keys["bad"], why) {
		t.Errorf("%v", err)
	}
	if len(found) != 3 || len(found["A"]) != 1 || len(found["a"]) != 1 || len(found["b"]) != 1 || &found["A"][0] == &found["a"][0] {
		t.Errorf("%v", found)
	}
}

func TestCollectorVersions(t *testing.T) {
	at := func(day int) time.Time {
		if day == 0 {
			return time.Time{}
		}
		return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
	}
	for name, versions := range map[string][][2]int{
		"ok: ordered":         {{0, 2}, {2, 4}, {4, 0}},
		"ok: in any order":    {{4, 0}, {0, 2}, {2, 4}},
		"ok: with gaps":       {{5, 6}, {2, 3}},
		"ok: always":          {{0, 0}},
		"bad: both for ever":  {{2, 0}, {4, 0}},
		"bad: both since":     {{0, 4}, {0, 2}},
		"bad: one in another": {{2, 8}, {3, 4}},
		"bad: overlapping":    {{2, 4}, {3, 5}},
		"bad: backwards":      {{4, 2}},
		"bad: empty":          {{4, 4}},
	} {
		c := NewCollector([]string{"a"}, lower, true)
		for _, v := range versions {
			if err := c.Add("a", Row{From: at(v[0]), To: at(v[1])}, nil); err != nil {
				t.Fatal(err)
			}
		}
		found, err := c.Answer()
		if strings.HasPrefix(name, "ok") != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		for i, r := range found["a"] {
			if i > 0 && r.From.Before(found["a"][i-1].From) {
				t.Errorf("%s: not in order", name)
			}
		}
	}
	c := NewCollector([]string{"a"}, lower, true)
	for i := range maxVersions + 1 {
		_ = c.Add("a", Row{From: time.Unix(int64(i), 0), To: time.Unix(int64(i+1), 0)}, nil)
	}
	if found, err := c.Answer(); !errors.Is(err, ErrMalformed) || len(found) != 0 {
		t.Errorf("%d versions: %v", maxVersions+1, err)
	}
}

// TestCollectorBytes: what a call holds is bounded, and more is an error that says so.
func TestCollectorBytes(t *testing.T) {
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	c, large := NewCollector(keys, lower, false), bytes.Repeat([]byte("x"), MaxRow)
	for i, key := range keys {
		if err := c.Add(key, Row{JSON: large}, nil); err != nil {
			if i != maxAnswer/MaxRow || !strings.Contains(err.Error(), "select fewer fields") {
				t.Errorf("after %d: %v", i, err)
			}
			return
		}
	}
	t.Error("100 MiB were taken")
}
