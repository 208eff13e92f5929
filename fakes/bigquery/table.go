package bigquery

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
)

// Column is a column of a table, or a field of a STRUCT.
type Column struct {
	Name string
	// Type is STRING, BYTES, INT64, FLOAT64, BOOL, TIMESTAMP, DATE, TIME, DATETIME, NUMERIC,
	// BIGNUMERIC, JSON, GEOGRAPHY or STRUCT; the older INTEGER, FLOAT, BOOLEAN and RECORD are taken too.
	Type   string
	Mode   string   // "" or NULLABLE, REQUIRED, REPEATED
	Fields []Column // of a STRUCT
}

// Table describes a table.
type Table struct {
	Name       string // PROJECT.DATASET.TABLE
	Columns    []Column
	PrimaryKey []string // names of columns; empty: none
}

// Row is one row as a query would see it, by column: string, int64, float64, bool, []byte, time.Time
// (TIMESTAMP, in UTC), a text for DATE, TIME, DATETIME, NUMERIC, BIGNUMERIC, JSON and GEOGRAPHY, Row for
// a STRUCT, []any for what is REPEATED. NULL is absent.
type Row map[string]any

// table is a table with what is visible of it.
type table struct {
	Table
	path string // projects/P/datasets/D/tables/T

	// What queries see, in the order in which it became visible. A row that was changed keeps its place,
	// one that was deleted is nil.
	rows    []Row
	changed map[string]change // by primary key
}

// change is the newest change to a primary key.
type change struct {
	sequence [4]uint64
	at       int // in rows
}

// StreamInfo says how a write stream stands.
type StreamInfo struct {
	Name      string
	Type      string // BUFFERED, COMMITTED or PENDING
	Rows      int64  // appended
	Flushed   int64  // of them visible
	Finalized bool
}

var nameParts = regexp.MustCompile(`^([a-z0-9.:-]+)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_-]+)$`)

// pathOf makes the full name of PROJECT.DATASET.TABLE.
func pathOf(name string) (string, error) {
	m := nameParts.FindStringSubmatch(name)
	if m == nil {
		return "", fmt.Errorf("fake bigquery: table %q: want PROJECT.DATASET.TABLE", name)
	}
	return "projects/" + m[1] + "/datasets/" + m[2] + "/tables/" + m[3], nil
}

// CreateTable creates a table, and its data set if need be.
func (s *Server) CreateTable(t Table) error {
	path, err := pathOf(t.Name)
	if err != nil {
		return err
	}
	t.Columns = cloneColumns(t.Columns)
	if err := checkColumns(t.Columns, ""); err != nil {
		return err
	}
	for _, key := range t.PrimaryKey {
		c := column(t.Columns, key)
		if c == nil || c.Mode == "REPEATED" || c.Type == "STRUCT" {
			return fmt.Errorf("fake bigquery: the primary key's %q is no column that can be one", key)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tables[path] != nil {
		return fmt.Errorf("fake bigquery: table %s exists already", t.Name)
	}
	s.sets[path[:strings.Index(path, "/tables/")]] = true
	s.tables[path] = &table{Table: t, path: path, changed: make(map[string]change)}
	return nil
}

func cloneColumns(in []Column) []Column {
	out := slices.Clone(in)
	for i := range out {
		out[i].Fields = cloneColumns(out[i].Fields)
	}
	return out
}

// older are the names of types in the first dialect.
var older = map[string]string{"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}

// checkColumns also brings types and modes into one form.
func checkColumns(columns []Column, within string) error {
	if len(columns) == 0 {
		return fmt.Errorf("fake bigquery: %q has no columns", within)
	}
	seen := make(map[string]bool)
	for i := range columns {
		c := &columns[i]
		c.Type, c.Mode = strings.ToUpper(c.Type), strings.ToUpper(c.Mode)
		if newer := older[c.Type]; newer != "" {
			c.Type = newer
		}
		if c.Mode == "" {
			c.Mode = "NULLABLE"
		}
		name := within + c.Name
		switch {
		case c.Name == "" || seen[strings.ToLower(c.Name)]:
			return fmt.Errorf("fake bigquery: column %q is nameless or there twice", name)
		case storageTypes[c.Type] == 0:
			return fmt.Errorf("fake bigquery: column %s: unknown type %q", name, c.Type)
		case pb.TableFieldSchema_Mode_value[c.Mode] == 0:
			return fmt.Errorf("fake bigquery: column %s: unknown mode %q", name, c.Mode)
		case c.Type == "STRUCT":
			if err := checkColumns(c.Fields, name+"."); err != nil {
				return err
			}
		}
		seen[strings.ToLower(c.Name)] = true
	}
	return nil
}

func column(columns []Column, name string) *Column {
	for i := range columns {
		if strings.EqualFold(columns[i].Name, name) {
			return &columns[i]
		}
	}
	return nil
}

var storageTypes = map[string]pb.TableFieldSchema_Type{
	"STRING": pb.TableFieldSchema_STRING, "BYTES": pb.TableFieldSchema_BYTES, "INT64": pb.TableFieldSchema_INT64,
	"FLOAT64": pb.TableFieldSchema_DOUBLE, "BOOL": pb.TableFieldSchema_BOOL, "TIMESTAMP": pb.TableFieldSchema_TIMESTAMP,
	"DATE": pb.TableFieldSchema_DATE, "TIME": pb.TableFieldSchema_TIME, "DATETIME": pb.TableFieldSchema_DATETIME,
	"NUMERIC": pb.TableFieldSchema_NUMERIC, "BIGNUMERIC": pb.TableFieldSchema_BIGNUMERIC, "JSON": pb.TableFieldSchema_JSON,
	"GEOGRAPHY": pb.TableFieldSchema_GEOGRAPHY, "STRUCT": pb.TableFieldSchema_STRUCT,
}

func storageSchema(columns []Column) []*pb.TableFieldSchema {
	out := make([]*pb.TableFieldSchema, len(columns))
	for i, c := range columns {
		out[i] = &pb.TableFieldSchema{Name: c.Name, Type: storageTypes[c.Type],
			Mode: pb.TableFieldSchema_Mode(pb.TableFieldSchema_Mode_value[c.Mode]), Fields: storageSchema(c.Fields)}
	}
	return out
}

// Rows returns what a query would see of a table, by its name PROJECT.DATASET.TABLE, in the order in which
// it became visible. The rows are shared, and must not be changed.
func (s *Server) Rows(name string) ([]Row, error) {
	t, err := s.lookUp(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Row, 0, len(t.rows))
	for _, r := range t.rows {
		if r != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// Streams returns the write streams that were made for a table, the oldest first.
func (s *Server) Streams(name string) ([]StreamInfo, error) {
	t, err := s.lookUp(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []StreamInfo
	for _, name := range slices.Sorted(maps.Keys(s.streams)) {
		if st := s.streams[name]; st.table == t {
			out = append(out, StreamInfo{st.name, st.kind.String(), int64(len(st.rows)), st.flushed, st.finalized})
		}
	}
	return out, nil
}

// Expire deletes a write stream by its full name, and what is not visible of it.
func (s *Server) Expire(stream string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[stream] == nil {
		return fmt.Errorf("fake bigquery: no stream %s", stream)
	}
	delete(s.streams, stream)
	return nil
}

func (s *Server) lookUp(name string) (*table, error) {
	path, err := pathOf(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[path]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("fake bigquery: no table %s", name)
}

// apply makes decoded rows visible, in their order. The caller holds the server's lock.
func (t *table) apply(rows []decoded) {
	for _, d := range rows {
		if d.change == "" {
			t.rows = append(t.rows, d.row)
			continue
		}
		key := t.keyOf(d.row)
		was, known := t.changed[key]
		if known && slices.Compare(d.sequence[:], was.sequence[:]) < 0 {
			continue
		}
		row := d.row
		if d.change == "DELETE" {
			row = nil
		}
		if known {
			t.rows[was.at] = row
		} else {
			was.at = len(t.rows)
			t.rows = append(t.rows, row)
		}
		t.changed[key] = change{d.sequence, was.at}
	}
}

// keyOf is a row's primary key as one text.
func (t *table) keyOf(r Row) string {
	var b bytes.Buffer
	for _, name := range t.PrimaryKey {
		switch v := r[column(t.Columns, name).Name].(type) {
		case string:
			b.WriteString(strconv.Itoa(len(v)))
			b.WriteByte(' ')
			b.WriteString(v)
		default:
			fmt.Fprintf(&b, "%T %#v\n", v, v)
		}
	}
	return b.String()
}
