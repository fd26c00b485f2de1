// Package typednil finds a mistake that Go makes easy: a nil pointer in an interface, as
// from
//
//	var store *affinity.Redis // nil without a flag
//	a := &affinity.Table{Store: store}
//
// The field isn't nil, so that its default doesn't count, and its first use panics.
package typednil

import (
	"fmt"
	"reflect"
)

// Check returns an error if v is a nil pointer in an interface.
func Check(v any) error {
	if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && p.IsNil() {
		return fmt.Errorf("a nil %T was given, which isn't nil itself: leave the field alone where there is none", v)
	}
	return nil
}
