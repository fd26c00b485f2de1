package jsvalue

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxDepth limits how deep values may be nested, in what is sent and in what is
// read. It is far more than anybody needs, and little enough for the stack.
const maxDepth = 1000

// Normalize returns v as a tree that can be written. It follows the rules of
// encoding/json, except that a []byte stays binary and a [time.Time] stays a time,
// in milliseconds.
func Normalize(v any) (any, error) {
	var n normalizer
	return n.value(v)
}

// A normalizer counts how deep the value is nested that it is at.
type normalizer struct{ depth int }

// value normalizes common types without reflection.
func (n *normalizer) value(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, uint64:
		return v, nil
	case string:
		return Valid(v), nil
	case int:
		return int64(v), nil
	case float64:
		return finite(v)
	case []byte:
		return buffer(v), nil
	case time.Time:
		return date(v)
	}
	return n.reflect(reflect.ValueOf(v))
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	timeType      = reflect.TypeFor[time.Time]()
	numberType    = reflect.TypeFor[json.Number]()
)

// reflect normalizes a value of any type. It asks methods and types in the order of
// encoding/json.
func (n *normalizer) reflect(v reflect.Value) (any, error) {
	t := v.Type()
	if t.Kind() != reflect.Interface { // an interface isn't a level of its own
		if n.depth++; n.depth > maxDepth {
			return nil, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		defer func() { n.depth-- }()
	}
	nilable := t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface
	self := receiver(v)
	switch {
	case nilable && v.IsNil():
		return nil, nil
	case t == timeType:
		return date(v.Interface().(time.Time))
	case t == reflect.PointerTo(timeType):
		return date(v.Elem().Interface().(time.Time))
	case t.Kind() == reflect.Interface:
		return n.value(v.Elem().Interface())
	case self.Type().Implements(marshaler):
		return marshaled(self.Interface())
	case self.Type().Implements(textMarshaler):
		return text(self.Interface())
	case t == numberType:
		return marshaled(v.Interface())
	}

	switch t.Kind() {
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return v.Uint(), nil
	case reflect.Float32: // the shortest number that rounds to the same float32
		f, _ := strconv.ParseFloat(strconv.FormatFloat(v.Float(), 'g', -1, 32), 64)
		return finite(f)
	case reflect.Float64:
		return finite(v.Float())
	case reflect.String:
		return Valid(v.String()), nil
	case reflect.Pointer:
		return n.reflect(v.Elem())
	case reflect.Slice:
		if v.IsNil() {
			return nil, nil
		}
		if isBinary(t) {
			return buffer(v.Bytes()), nil
		}
		return n.list(v)
	case reflect.Array:
		return n.list(v)
	case reflect.Map:
		return n.mapping(v)
	case reflect.Struct:
		return n.structure(v)
	}
	return nil, &json.UnsupportedTypeError{Type: t}
}

// receiver returns the value whose method set has all methods of v: its address, if
// it has one.
func receiver(v reflect.Value) reflect.Value {
	if v.CanAddr() && v.Kind() != reflect.Pointer {
		return v.Addr()
	}
	return v
}

// marshals tells whether a value has a method that writes it.
func marshals(v reflect.Value) bool {
	t := receiver(v).Type()
	return t.Implements(marshaler) || t.Implements(textMarshaler)
}

// isBinary tells whether encoding/json would write a slice of this type as one
// base64 string.
func isBinary(t reflect.Type) bool {
	return t.Elem().Kind() == reflect.Uint8 && !marshals(reflect.New(t.Elem()))
}

func (n *normalizer) list(v reflect.Value) (any, error) {
	list := make([]any, v.Len())
	for i := range list {
		var err error
		if list[i], err = n.reflect(v.Index(i)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (n *normalizer) mapping(v reflect.Value) (any, error) {
	if v.IsNil() {
		return nil, nil
	}
	o := make(Object, 0, v.Len())
	for i := v.MapRange(); i.Next(); {
		key, err := mapKey(i.Key())
		if err != nil {
			return nil, err
		}
		value, err := n.reflect(i.Value())
		if err != nil {
			return nil, err
		}
		o = append(o, Property{key, value})
	}
	slices.SortFunc(o, func(a, b Property) int { return strings.Compare(a.Key, b.Key) })
	return o, nil
}

// mapKey returns the name of the property for a key of a map.
func mapKey(k reflect.Value) (string, error) {
	switch {
	case k.Kind() == reflect.String:
		return Valid(k.String()), nil
	case k.Type().Implements(textMarshaler):
		if (k.Kind() == reflect.Pointer || k.Kind() == reflect.Interface) && k.IsNil() {
			return "", nil
		}
		s, err := text(k.Interface())
		if err != nil {
			return "", err
		}
		return s.(string), nil
	case k.CanInt():
		return strconv.FormatInt(k.Int(), 10), nil
	case k.CanUint():
		return strconv.FormatUint(k.Uint(), 10), nil
	}
	return "", &json.UnsupportedTypeError{Type: k.Type()}
}

// marshaled returns what the value's MarshalJSON method writes.
func marshaled(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return ordered(d)
}

// ordered reads a JSON value and keeps the order of the properties of objects.
// encoding/json limits how deep the value is nested.
func ordered(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := ordered(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	case json.Delim('{'):
		o := Object{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := ordered(d)
			if err != nil {
				return nil, err
			}
			o = append(o, Property{key.(string), v})
		}
		_, err := d.Token()
		return o, err
	}
	if n, ok := token.(json.Number); ok {
		return number(n)
	}
	return token, nil
}

// number returns an integer exactly if it has at most 64 bits.
func number(n json.Number) (any, error) {
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return i, nil
	}
	if u, err := strconv.ParseUint(string(n), 10, 64); err == nil {
		return u, nil
	}
	return n.Float64()
}

// text returns what the value's MarshalText method writes.
func text(v any) (any, error) {
	s, err := v.(encoding.TextMarshaler).MarshalText()
	return Valid(string(s)), err
}

// finite refuses the numbers that JSON doesn't have.
func finite(f float64) (any, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v is no number in JSON", f)
	}
	return f, nil
}

// buffer makes a nil slice null, as encoding/json does.
func buffer(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// date returns a time as a Date has it, in UTC and in milliseconds.
func date(t time.Time) (any, error) {
	t = t.UTC().Truncate(time.Millisecond)
	if y := t.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("the year %d is outside of what JSON allows", y)
	}
	return t, nil
}
