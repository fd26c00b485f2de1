package socketio

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// structure returns the fields of a struct that encoding/json would write.
func (n *normalizer) structure(v reflect.Value) (any, error) {
	fields := fieldsOf(v.Type())
	o := make(object, 0, len(fields))
	for _, f := range fields {
		fv, err := v.FieldByIndexErr(f.index)
		if err != nil || f.omitted(fv) { // err: an embedded pointer is nil
			continue
		}
		value, err := n.reflect(fv)
		if err != nil {
			return nil, err
		}
		if f.quoted {
			value = quote(value)
		}
		o = append(o, property{f.name, value})
	}
	return o, nil
}

// field is a field of a struct, or of one that is embedded in it.
type field struct {
	name                        string
	index                       []int
	tagged                      bool
	omitEmpty, omitZero, quoted bool
}

func (f *field) omitted(v reflect.Value) bool {
	switch {
	case f.omitZero:
		return isZero(v)
	case !f.omitEmpty || v.Kind() == reflect.Struct:
		return false
	case v.Kind() == reflect.Map || v.Kind() == reflect.Slice || v.Kind() == reflect.Array:
		return v.Len() == 0
	}
	return v.IsZero()
}

// isZero asks the type's own IsZero where it has one.
func isZero(v reflect.Value) bool {
	var boxed any
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() || v.Elem().Kind() == reflect.Pointer && v.Elem().IsNil() {
			return true
		}
		boxed = v.Interface()
	default: // the method may be the pointer's
		pointer := reflect.New(v.Type())
		pointer.Elem().Set(v)
		boxed = pointer.Interface()
	}
	if z, ok := boxed.(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	return v.IsZero()
}

// quote is what the tag's option string does.
func quote(v any) any {
	if v == nil { // a nil pointer
		return nil
	}
	return string(appendJSON(nil, v))
}

func quotable(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Float64 || k == reflect.String
}

// validName tells whether encoding/json takes a tag's name. Other characters
// than these, letters and digits are reserved by it.
func validName(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return true
}

// fieldsOf returns the fields of a struct in their order. Of several that have
// the same name, the one that is embedded least deep hides the others, then the
// one that has its name by a tag; if that doesn't decide, none of them is left.
func fieldsOf(t reflect.Type) []field {
	all := collect(nil, t, nil, nil)
	slices.SortStableFunc(all, func(a, b field) int {
		return cmp.Or(strings.Compare(a.name, b.name), compareDominance(a, b))
	})
	fields := all[:0]
	for i := 0; i < len(all); {
		next := i + 1
		for next < len(all) && all[next].name == all[i].name {
			next++
		}
		if next == i+1 || compareDominance(all[i], all[i+1]) != 0 {
			fields = append(fields, all[i])
		}
		i = next
	}
	slices.SortFunc(fields, func(a, b field) int { return slices.Compare(a.index, b.index) })
	return fields
}

func compareDominance(a, b field) int {
	if c := cmp.Compare(len(a.index), len(b.index)); c != 0 || a.tagged == b.tagged {
		return c
	}
	if a.tagged {
		return -1
	}
	return 1
}

// collect appends the fields of t. outer are the structs that t is embedded in:
// one that embeds itself, by a pointer, has nothing new to tell.
func collect(fields []field, t reflect.Type, index []int, outer []reflect.Type) []field {
	if slices.Contains(outer, t) {
		return fields
	}
	outer = append(slices.Clip(outer), t)
	for i := range t.NumField() {
		sf := t.Field(i)
		tag := sf.Tag.Get("json")
		ft := sf.Type
		if ft.Name() == "" && ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		inStruct := sf.Anonymous && ft.Kind() == reflect.Struct
		if tag == "-" || !sf.IsExported() && !inStruct {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if !validName(name) {
			name = ""
		}
		at := append(slices.Clip(index), i)
		if inStruct && name == "" {
			fields = collect(fields, ft, at, outer)
			continue
		}
		if !sf.IsExported() {
			continue
		}
		f := field{name: cmp.Or(name, sf.Name), index: at, tagged: name != ""}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty":
				f.omitEmpty = true
			case "omitzero":
				f.omitZero = true
			case "string":
				f.quoted = quotable(ft.Kind())
			}
		}
		fields = append(fields, f)
	}
	return fields
}
