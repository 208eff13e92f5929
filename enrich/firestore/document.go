package firestore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"

	"github.com/millstream/millstream/enrich"
)

// row is a document as JSON: integers exactly, timestamps in RFC 3339, bytes in base64, references as names, geographical
// points as {"latitude":…,"longitude":…}; a number that JSON does not have is null.
func (t *Table) row(d *pb.Document) ([]byte, error) {
	data, err := json.Marshal(object(d.GetFields()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", enrich.ErrMalformed, err)
	}
	return t.fields.Object(data)
}

func object(fields map[string]*pb.Value) map[string]any {
	out := make(map[string]any, len(fields))
	for name, v := range fields {
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
	case *pb.Value_BytesValue:
		return base64.StdEncoding.EncodeToString(v.BytesValue)
	case *pb.Value_TimestampValue:
		return v.TimestampValue.AsTime().Format(time.RFC3339Nano)
	case *pb.Value_ReferenceValue:
		return v.ReferenceValue
	case *pb.Value_GeoPointValue:
		return map[string]any{"latitude": v.GeoPointValue.GetLatitude(), "longitude": v.GeoPointValue.GetLongitude()}
	case *pb.Value_MapValue:
		return object(v.MapValue.GetFields())
	case *pb.Value_ArrayValue:
		list := make([]any, 0, len(v.ArrayValue.GetValues()))
		for _, e := range v.ArrayValue.GetValues() {
			list = append(list, plain(e))
		}
		return list
	}
	return nil
}
