package blob

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
)

const (
	// unknown stands for a field that a row does not have.
	unknown = "unknown"
	// maxValue is the length of a field in a path; a longer one is cut, and told from others by a hash.
	maxValue = 72
	// maxElement is the length of a folder's name with the longest fields, maxPath that of all of them:
	// with a file's name they stay below the 1,000 bytes of an object's.
	maxElement, maxPath = 240, 600
)

// template is the folders of a path, each of literal text and fields. It is nil for no path.
type template [][]piece

// piece is a text, or else a field with, for times, a layout.
type piece struct {
	text   string
	field  []string
	layout string
}

// parsePath reads a template: folders of literal text and {field} or {field:layout}. A field is one of the
// row, a.b a nested one; window_start and window_end are the window's, in a pipeline that has windows. With a
// layout, as of Go's package time, it is a time in RFC 3339, written in UTC; the layout may have slashes. A
// field that is missing, null, an object, an array, or no time although it has a layout, is "unknown". What
// could leave the folder, or hide it from readers, is percent-encoded, as Hive partitions are.
func parsePath(text string) (template, error) {
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "/") {
		return nil, fmt.Errorf("path=%s begins with /: it is below the sink's folder", text)
	}
	t, length := template{nil}, 0
	add := func(p piece) { t[len(t)-1] = append(t[len(t)-1], p) }
	for rest := strings.TrimSuffix(text, "/"); rest != ""; {
		i := strings.IndexAny(rest, "{}/")
		switch {
		case i < 0:
			i = len(rest)
		case rest[i] == '}':
			return nil, fmt.Errorf("path=%s: } without {", text)
		}
		if i > 0 {
			if escape(rest[:i]) != strings.ReplaceAll(rest[:i], " ", "%20") {
				return nil, fmt.Errorf("path=%s: %q has characters that do not belong in a folder's name", text, rest[:i])
			}
			add(piece{text: rest[:i]})
		}
		if rest = rest[i:]; rest == "" {
			break
		}
		if rest[0] == '/' {
			t, rest = append(t, nil), rest[1:]
			continue
		}
		inner, after, found := strings.Cut(rest[1:], "}")
		name, layout, timed := strings.Cut(inner, ":")
		switch {
		case !found:
			return nil, fmt.Errorf("path=%s: { without }", text)
		case name == "" || strings.ContainsAny(inner, "{") || strings.Contains("."+name+".", ".."):
			return nil, fmt.Errorf("path=%s: {%s} names no field", text, inner)
		case timed:
			if err := checkLayout(layout); err != nil {
				return nil, fmt.Errorf("path=%s: {%s}: %w", text, inner, err)
			}
		}
		add(piece{field: strings.Split(name, "."), layout: layout})
		rest = after
	}
	for _, element := range t {
		longest := 0
		for _, p := range element {
			if longest += len(p.text); p.field != nil {
				longest += maxValue
			}
		}
		length += longest + 1
		first := ""
		if longest > 0 {
			first = element[0].text
		}
		switch {
		case longest == 0:
			return nil, fmt.Errorf("path=%s: a folder has no name", text)
		case strings.HasPrefix(first, "_"), strings.HasPrefix(first, "."):
			return nil, fmt.Errorf("path=%s: %s: readers ignore names that begin with _ or .", text, first)
		case longest > maxElement || length > maxPath:
			return nil, fmt.Errorf("path=%s: too long: with %d bytes a field a folder's name may have %d, and all together %d", text, maxValue, maxElement, maxPath)
		}
	}
	return t, nil
}

// checkLayout refuses a layout that shows nothing of a time, since it has a slip in it.
func checkLayout(layout string) error {
	one, other := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC), time.Date(2012, 11, 22, 13, 44, 55, 123_000_000, time.UTC)
	text := one.Format(layout)
	switch {
	case text == other.Format(layout):
		return errors.New("the layout shows no part of a time: write it as Go does, such as 2006-01-02 or 2006-01-02T15")
	case strings.HasPrefix(text, "/"), strings.HasSuffix(text, "/"), strings.Contains(text, "//"):
		return errors.New("the layout makes folders without a name")
	case len(layout) > maxValue/2:
		return fmt.Errorf("the layout is longer than %d bytes", maxValue/2)
	}
	return nil
}

// of is the path of a row, "" or ending in "/".
func (t template) of(r *stream.Row) string {
	if t == nil {
		return ""
	}
	var out, element strings.Builder
	for _, pieces := range t {
		element.Reset()
		for _, p := range pieces {
			if p.field == nil {
				element.WriteString(escape(p.text))
			} else {
				element.WriteString(p.of(r))
			}
		}
		for folder := range strings.SplitSeq(element.String(), "/") { // a time's layout may have slashes
			out.WriteString(hardened(folder))
			out.WriteByte('/')
		}
	}
	return out.String()
}

// hardened makes a folder's name visible, and no way to another folder.
func hardened(name string) string {
	name = visible(name)
	if strings.HasSuffix(name, ".") {
		name = name[:len(name)-1] + "%2E"
	}
	return name
}

// of is the field of a row as it stands in a path.
func (p piece) of(r *stream.Row) string {
	if len(p.field) == 1 && r.Window != (stream.Window{}) {
		switch p.field[0] {
		case "window_start":
			return p.timed(r.Window.Start.Time(), r.Window.Start.String())
		case "window_end":
			return p.timed(r.Window.End.Time(), r.Window.End.String())
		}
	}
	data := json.RawMessage(r.Data)
	for _, name := range p.field {
		var fields map[string]json.RawMessage
		if json.Unmarshal(data, &fields) != nil {
			return unknown
		}
		data = fields[name]
	}
	text := string(bytes.TrimSpace(data))
	if text == "" || text == "null" || text[0] == '{' || text[0] == '[' {
		return unknown
	}
	if text[0] == '"' {
		if json.Unmarshal(data, &text) != nil || text == "" {
			return unknown
		}
	}
	if p.layout == "" {
		return cut(escape(text))
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return unknown
	}
	return p.timed(at.UTC(), text)
}

func (p piece) timed(at time.Time, text string) string {
	if p.layout == "" {
		return cut(escape(text))
	}
	folders := strings.Split(at.Format(p.layout), "/")
	for i := range folders {
		folders[i] = escape(folders[i])
	}
	return strings.Join(folders, "/")
}

const hexDigits = "0123456789ABCDEF"

// escape percent-encodes what is not a letter, a digit or one of -_.~+=@,: of ASCII.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~+=@,:", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// cut bounds an escaped value, between two escapes.
func cut(s string) string {
	if len(s) <= maxValue {
		return s
	}
	keep := maxValue - 33
	if i := strings.LastIndexByte(s[:keep], '%'); i > keep-3 {
		keep = i
	}
	return shorten(s, keep)
}
