// Package jsvalue writes Go values as the JavaScript values that Socket.IO's nodes
// exchange, in JSON and in MessagePack, and reads what they write.
//
// [Normalize] turns any Go value into a tree of nil, bool, int64, uint64, float64,
// string, []byte, time.Time, []any and [Object]. [AppendJSON] and
// [Dates.AppendMsgpack] write such a tree, and panic if they get anything else.
//
// [Parse] and [ParseMsgpack] return nil, bool, float64, string, []byte, time.Time,
// []any and map[string]any.
package jsvalue

import (
	"slices"
	"unicode/utf8"
)

// An Object is a JavaScript object. Its properties have an order.
type Object []Property

// A Property is a property of an Object. It is an alias, so that other packages can
// write Object{{"key", value}} and go vet doesn't ask for the names of the fields.
type Property = struct {
	Key   string
	Value any
}

// HasBinary tells whether there is a []byte in a normalized value.
func HasBinary(v any) bool {
	switch v := v.(type) {
	case []byte:
		return true
	case []any:
		return slices.ContainsFunc(v, HasBinary)
	case Object:
		return slices.ContainsFunc(v, func(p Property) bool { return HasBinary(p.Value) })
	}
	return false
}

// PropertyName returns the string that JavaScript makes of a value that is used as
// the name of a property or of a room. It is false if the value is neither a string
// nor a number.
func PropertyName(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return string(appendNumber(nil, v)), true
	}
	return "", false
}

// Valid replaces each byte that isn't valid UTF-8 with U+FFFD, as encoding/json
// does.
func Valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}
