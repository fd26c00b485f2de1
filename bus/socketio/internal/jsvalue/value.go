// Package jsvalue converts Go values to JavaScript values and back, as JSON and as
// MessagePack.
package jsvalue

import (
	"slices"
	"unicode/utf8"
)

// An Object is a JavaScript object whose properties have an order.
type Object []Property

// A Property is a property of an Object. It has no type of its own, so that
// another package can write Object{{"key", value}}.
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

// name returns a string as JavaScript makes it of a value that is used as the
// name of a property or of a room.
func PropertyName(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return string(appendNumber(nil, v)), true
	}
	return "", false
}

// valid replaces each invalid byte, as encoding/json does.
func Valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}
