package datastore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	pb "cloud.google.com/go/datastore/apiv1/datastorepb"

	"github.com/millstream/millstream/enrich"
)

// validName reports whether a text may be the name of a key: names that look like __name__ are the service's own.
func validName(text string) bool {
	return text != "" && len(text) <= maxName && utf8.ValidString(text) && !(len(text) >= 4 && text[:2] == "__" && text[len(text)-2:] == "__")
}

// row is an entity as JSON: integers exactly, timestamps in RFC 3339, blobs in base64, keys as their path, geographical
// points as {"latitude":…,"longitude":…}; a number that JSON does not have is null.
func (t *Table) row(e *pb.Entity) ([]byte, error) {
	data, err := json.Marshal(object(e))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", enrich.ErrMalformed, err)
	}
	return t.fields.Object(data)
}

func object(e *pb.Entity) map[string]any {
	out := make(map[string]any, len(e.GetProperties()))
	for name, v := range e.GetProperties() {
		out[name] = plain(v)
	}
	return out
}

func plain(v *pb.Value) any {
	switch v := v.GetValueType().(type) {
	case *pb.Value_BooleanValue:
		return v.BooleanValue
	case *pb.Value_IntegerValue:
		return v.IntegerValue
	case *pb.Value_DoubleValue:
		if math.IsNaN(v.DoubleValue) || math.IsInf(v.DoubleValue, 0) {
			return nil
		}
		return v.DoubleValue
	case *pb.Value_StringValue:
		return v.StringValue
	case *pb.Value_BlobValue:
		return base64.StdEncoding.EncodeToString(v.BlobValue)
	case *pb.Value_TimestampValue:
		return v.TimestampValue.AsTime().Format(time.RFC3339Nano)
	case *pb.Value_KeyValue:
		path := []any{}
		for _, e := range v.KeyValue.GetPath() {
			path = append(path, e.GetKind())
			if id := e.GetId(); id != 0 {
				path = append(path, id)
			} else {
				path = append(path, e.GetName())
			}
		}
		return path
	case *pb.Value_GeoPointValue:
		return map[string]any{"latitude": v.GeoPointValue.GetLatitude(), "longitude": v.GeoPointValue.GetLongitude()}
	case *pb.Value_EntityValue:
		return object(v.EntityValue)
	case *pb.Value_ArrayValue:
		list := make([]any, 0, len(v.ArrayValue.GetValues()))
		for _, e := range v.ArrayValue.GetValues() {
			list = append(list, plain(e))
		}
		return list
	}
	return nil
}
