package dynamodb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/millstream/millstream/enrich"
)

// projection is what is read of an item. Its zero value is all.
type projection struct {
	expression *string
	names      map[string]string
	hidden     []string // read only to tell for whom an item is
}

// project makes the expression that reads paths and the key. Every name in it is a placeholder: more than
// 570 words are reserved, see
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html. A path below another
// one is left out, since the service refuses paths that overlap.
func project(paths []string, keys ...string) projection {
	if len(paths) == 0 {
		return projection{}
	}
	p := projection{names: map[string]string{}}
	read := map[string]bool{}
	for _, path := range paths {
		read[path] = true
	}
	for _, key := range keys {
		if key != "" && !read[key] {
			read[key] = true
			p.hidden = append(p.hidden, key)
		}
	}
	var terms []string
	aliases := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(read)) {
		if covered(read, path) {
			continue
		}
		parts := strings.Split(path, ".")
		for i, name := range parts {
			if aliases[name] == "" {
				aliases[name] = "#" + strconv.Itoa(len(aliases))
				p.names[aliases[name]] = name
			}
			parts[i] = aliases[name]
		}
		terms = append(terms, strings.Join(parts, "."))
	}
	p.expression = aws.String(strings.Join(terms, ", "))
	return p
}

// covered reports whether a part of the path is read anyway.
func covered(read map[string]bool, path string) bool {
	for i := range path {
		if path[i] == '.' && read[path[:i]] {
			return true
		}
	}
	return false
}

// row makes the JSON object of an item. It takes from the item what is hidden.
func (p projection) row(it item) ([]byte, error) {
	for _, name := range p.hidden {
		delete(it, name)
	}
	object, err := plainMap(it)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(object); err != nil {
		return nil, fmt.Errorf("%w: %w", enrich.ErrMalformed, err)
	}
	row := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(row) > enrich.MaxRow {
		return nil, fmt.Errorf("%w: %d bytes of JSON, more than %d", enrich.ErrMalformed, len(row), enrich.MaxRow)
	}
	return row, nil
}

// plain makes of a value what encoding/json writes: numbers digit by digit, binary as base64, sets as
// arrays.
func plain(v types.AttributeValue) (any, error) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value, nil
	case *types.AttributeValueMemberN:
		return plainNumber(v.Value)
	case *types.AttributeValueMemberB:
		return v.Value, nil
	case *types.AttributeValueMemberBOOL:
		return v.Value, nil
	case *types.AttributeValueMemberNULL:
		return nil, nil
	case *types.AttributeValueMemberM:
		return plainMap(v.Value)
	case *types.AttributeValueMemberL:
		return plainList(v.Value, plain)
	case *types.AttributeValueMemberSS:
		return v.Value, nil
	case *types.AttributeValueMemberNS:
		return plainList(v.Value, plainNumber)
	case *types.AttributeValueMemberBS:
		return v.Value, nil
	}
	return nil, fmt.Errorf("%w: a value of unknown type %T", enrich.ErrMalformed, v)
}

// plainNumber refuses what JSON has no number for; encoding/json would write an empty one as 0.
func plainNumber(text string) (any, error) {
	if !json.Valid([]byte(text)) || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return nil, fmt.Errorf("%w: %.64q for a number", enrich.ErrMalformed, text)
	}
	return json.Number(text), nil
}

func plainMap(m item) (any, error) {
	out := make(map[string]any, len(m))
	for name, v := range m {
		p, err := plain(v)
		if err != nil {
			return nil, fmt.Errorf("attribute %.64q: %w", name, err)
		}
		out[name] = p
	}
	return out, nil
}

func plainList[T any](list []T, element func(T) (any, error)) (any, error) {
	out := make([]any, len(list))
	for i, v := range list {
		p, err := element(v)
		if err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}
