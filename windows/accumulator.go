package windows

import (
	"encoding"
	"fmt"
	"math/big"
	"reflect"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// accumulatorCodec turns accumulators of type A into bytes and back.
type accumulatorCodec[A any] struct {
	append func(dst []byte, acc *A) ([]byte, error)
	decode func(data []byte, acc *A) error
	flat   bool // a plain copy of an A shares nothing with it
}

var (
	cborEncoding = func() cbor.EncMode {
		o := cbor.CoreDetEncOptions()
		o.Time = cbor.TimeRFC3339Nano
		return must(o.EncMode())
	}()
	// The defaults refuse arrays of more than 131,072 elements, and would do so only at a restore.
	// Memory stays bounded: an array is allocated only after its elements were found to be there.
	cborDecoding = must(cbor.DecOptions{MaxArrayElements: 1<<31 - 1, MaxMapPairs: 1<<31 - 1, MaxNestedLevels: 256}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func codecOf[A any]() accumulatorCodec[A] {
	c := accumulatorCodec[A]{flat: flat(reflect.TypeFor[A]())}
	var probe any = new(A)
	_, appender := probe.(encoding.BinaryAppender)
	_, marshaler := probe.(encoding.BinaryMarshaler)
	_, unmarshaler := probe.(encoding.BinaryUnmarshaler)
	switch {
	case unmarshaler && appender:
		c.append = func(dst []byte, acc *A) ([]byte, error) { return any(acc).(encoding.BinaryAppender).AppendBinary(dst) }
	case unmarshaler && marshaler:
		c.append = func(dst []byte, acc *A) ([]byte, error) {
			b, err := any(acc).(encoding.BinaryMarshaler).MarshalBinary()
			return append(dst, b...), err
		}
	default:
		c.append = func(dst []byte, acc *A) ([]byte, error) {
			b, err := cborEncoding.Marshal(acc)
			return append(dst, b...), err
		}
		c.decode = func(data []byte, acc *A) error { return cborDecoding.Unmarshal(data, acc) }
		return c
	}
	c.decode = func(data []byte, acc *A) error { return any(acc).(encoding.BinaryUnmarshaler).UnmarshalBinary(data) }
	return c
}

// flat reports whether values of a type refer to nothing that can change.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return flat(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !flat(t.Field(i).Type) {
				return false
			}
		}
		return true
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return false
	}
	return true
}

// checkAccumulator refuses an accumulator type that would come back from a checkpoint changed.
func checkAccumulator[A any]() error {
	t := reflect.TypeFor[A]()
	if err := checkSaved(t, t.String(), make(map[reflect.Type]bool)); err != nil {
		return fmt.Errorf("windows.Aggregation: accumulator %w; or implement MarshalBinary and UnmarshalBinary on *%s", err, t)
	}
	return nil
}

var (
	marshalerType   = reflect.TypeFor[encoding.BinaryMarshaler]()
	appenderType    = reflect.TypeFor[encoding.BinaryAppender]()
	unmarshalerType = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

// savesItself reports whether a type has its own binary form. Inside of CBOR only MarshalBinary
// counts.
func savesItself(t reflect.Type) (saves, loads bool) {
	p := reflect.PointerTo(t)
	return p.Implements(marshalerType), p.Implements(unmarshalerType)
}

func checkSaved(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	if seen[t] {
		return nil
	}
	top := len(seen) == 0
	seen[t] = true
	if t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[big.Int]() {
		return nil
	}
	saves, loads := savesItself(t)
	if top {
		saves = saves || reflect.PointerTo(t).Implements(appenderType)
	}
	switch {
	case saves && loads:
		return nil
	case saves:
		return fmt.Errorf("%s has MarshalBinary but no UnmarshalBinary: it could be saved, not restored; add UnmarshalBinary", path)
	}
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Uintptr, reflect.Complex64, reflect.Complex128:
		return fmt.Errorf("%s is a %s, which a checkpoint cannot hold: leave it out", path, t.Kind())
	case reflect.Interface:
		return fmt.Errorf("%s is an interface: a checkpoint would lose the type of its value; use a concrete type", path)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return checkSaved(t.Elem(), path, seen)
	case reflect.Map:
		if err := checkSaved(t.Key(), path+" key", seen); err != nil {
			return err
		}
		return checkSaved(t.Elem(), path, seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name := path + "." + f.Name
			if !f.IsExported() && !(f.Anonymous && f.Type.Kind() == reflect.Struct) {
				return fmt.Errorf("%s is not exported, so a checkpoint would lose it: export the field", name)
			}
			if tag := f.Tag.Get("cbor"); tag == "-" || tag == "" && f.Tag.Get("json") == "-" {
				return fmt.Errorf(`%s is tagged "-", so a checkpoint would lose it: remove the tag`, name)
			}
			if err := checkSaved(f.Type, name, seen); err != nil {
				return err
			}
		}
	}
	return nil
}
