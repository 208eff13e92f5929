package azuretables

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millstream/millstream/enrich"
)

// The properties by which an entity is found, see
// https://learn.microsoft.com/rest/api/storageservices/payload-format-for-table-service-operations for how
// entities are written.
const (
	partitionKey = "PartitionKey"
	rowKey       = "RowKey"
	typeSuffix   = "@odata.type"
	metadata     = "odata."
)

// selection is what is read of an entity. Its zero value is all.
type selection struct {
	query  *string
	hidden []string // read only to tell whose the entity is
}

func newSelection(names []string) selection {
	if len(names) == 0 {
		return selection{}
	}
	var s selection
	all := slices.Clone(names)
	for _, name := range []string{partitionKey, rowKey} {
		if !slices.Contains(all, name) {
			all, s.hidden = append(all, name), append(s.hidden, name)
		}
	}
	query := strings.Join(all, ",")
	s.query = &query
	return s
}

// rowOf finds the entity in an answer and makes its row. Not ok: there is none.
func (s selection) rowOf(body []byte, partition, row string) (text []byte, ok bool, err error) {
	var answer struct {
		Value []map[string]any `json:"value"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, false, fmt.Errorf("the answer is no list of entities: %w", err)
	}
	if answer.Value == nil {
		return nil, false, errors.New("the answer has no list of entities")
	}
	for _, entity := range answer.Value {
		if entity[partitionKey] != partition || entity[rowKey] != row {
			return nil, false, fmt.Errorf("the answer has an entity that was not asked for, %.64q %.64q", entity[partitionKey], entity[rowKey])
		}
	}
	if len(answer.Value) == 0 {
		return nil, false, nil
	}
	text, err = s.encode(answer.Value[0])
	return text, err == nil, err
}

// encode makes the row of an entity.
func (s selection) encode(entity map[string]any) ([]byte, error) {
	row := make(map[string]any, len(entity))
	for name, value := range entity {
		// A property that was selected and is absent comes as null; none is kept as such.
		if value == nil || strings.HasPrefix(name, metadata) || strings.HasSuffix(name, typeSuffix) || slices.Contains(s.hidden, name) {
			continue
		}
		switch value.(type) {
		case string, bool, json.Number:
		default:
			return nil, malformed("property %.64q is no value of the service", name)
		}
		if entity[name+typeSuffix] == "Edm.Int64" {
			digits, _ := value.(string)
			if _, err := strconv.ParseInt(digits, 10, 64); err != nil || digits[0] == '+' {
				return nil, malformed("property %.64q is no Int64", name)
			}
			value = json.Number(digits)
		}
		row[name] = value
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(row); err != nil {
		return nil, malformed("%w", err)
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(text) > enrich.MaxRow {
		return nil, malformed("%d bytes of JSON, more than %d", len(text), enrich.MaxRow)
	}
	return text, nil
}

// malformed is the error of a row that is there and cannot be read.
func malformed(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &rowError{told{fmt.Sprintf("%v: %v", enrich.ErrMalformed, err), errors.Join(enrich.ErrMalformed, err)}}
}
