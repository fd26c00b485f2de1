package jsvalue

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
	o := make(Object, 0, len(fields))
	for _, f := range fields {
		fv, err := v.FieldByIndexErr(f.index)
		if err != nil || f.omitted(fv) { // err: an embedded pointer is nil
			continue
		}
		value, err := n.reflect(fv)
		if err != nil {
			return nil, err
		}
		if f.quoted && !marshals(fv) {
			value = quote(value)
		}
		o = append(o, Property{f.name, value})
	}
	return o, nil
}

// A field is a field of a struct, or of a struct that is embedded in it.
type field struct {
	name                        string
	index                       []int
	tagged                      bool
	omitEmpty, omitZero, quoted bool
}

func (f *field) omitted(v reflect.Value) bool {
	return f.omitEmpty && isEmpty(v) || f.omitZero && isZero(v)
}

// isEmpty tells whether the option omitempty leaves a value out.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		return false
	case reflect.Map, reflect.Slice, reflect.Array:
		return v.Len() == 0
	}
	return v.IsZero()
}

type zeroer interface{ IsZero() bool }

// isZero calls the type's own IsZero method if it has one, as the option omitzero
// does.
func isZero(v reflect.Value) bool {
	switch t := v.Type(); {
	case t.Implements(reflect.TypeFor[zeroer]()):
		inner := v
		if t.Kind() == reflect.Interface {
			inner = v.Elem()
		}
		if !inner.IsValid() || inner.Kind() == reflect.Pointer && inner.IsNil() {
			return true
		}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[zeroer]()):
		pointer := reflect.New(t)
		pointer.Elem().Set(v)
		v = pointer
	default:
		return v.IsZero()
	}
	return v.Interface().(zeroer).IsZero()
}

// quote writes a value as JSON in a string, as the option string does.
func quote(v any) any {
	if v == nil { // a nil pointer
		return nil
	}
	return string(AppendJSON(nil, v))
}

// quotable tells whether the option string has an effect on a kind.
func quotable(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Float64 || k == reflect.String
}

// validName tells whether encoding/json accepts the name in a tag: only these
// characters, letters and digits may be in it.
func validName(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return true
}

// fieldsOf returns the fields of a struct in their order. If several have the same
// name, the one that is embedded least deep hides the others; among equally deep
// ones, the one that has its name from a tag does. If neither decides, all of them
// are left out.
func fieldsOf(t reflect.Type) []field {
	all := collect(t)
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

// compareDominance sorts the field that hides another one before it.
func compareDominance(a, b field) int {
	if c := cmp.Compare(len(a.index), len(b.index)); c != 0 || a.tagged == b.tagged {
		return c
	}
	if a.tagged {
		return -1
	}
	return 1
}

// An embedded is a struct whose fields count as fields of the struct around it.
type embedded struct {
	t     reflect.Type
	index []int
	twice bool // embedded twice on the same level, so its fields hide each other
}

// collect returns the fields of t and of the structs embedded in it, level by level.
// A struct that is embedded several times counts where it is embedded least deep.
func collect(t reflect.Type) (fields []field) {
	seen := make(map[reflect.Type]bool)
	for level := []embedded{{t: t}}; len(level) > 0; {
		var deeper []embedded
		for _, e := range level {
			if seen[e.t] {
				continue
			}
			seen[e.t] = true
			for i := range e.t.NumField() {
				f, inner := fieldOf(e.t.Field(i))
				f.index = append(slices.Clip(e.index), i)
				same := slices.IndexFunc(deeper, func(d embedded) bool { return d.t == inner })
				switch {
				case inner == nil && f.name != "":
					fields = append(fields, f)
					if e.twice {
						fields = append(fields, f)
					}
				case inner != nil && same >= 0:
					deeper[same].twice = true
				case inner != nil:
					deeper = append(deeper, embedded{t: inner, index: f.index})
				}
			}
		}
		level = deeper
	}
	return fields
}

// fieldOf returns the field that is written for a field of a struct, or the type of
// the embedded struct whose fields stand for it. If neither is written, the name is
// "" and inner is nil.
func fieldOf(sf reflect.StructField) (f field, inner reflect.Type) {
	t := sf.Type
	if t.Name() == "" && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	tag := sf.Tag.Get("json")
	inStruct := sf.Anonymous && t.Kind() == reflect.Struct
	if tag == "-" || !sf.IsExported() && !inStruct {
		return field{}, nil
	}
	name, options, _ := strings.Cut(tag, ",")
	if !validName(name) {
		name = ""
	}
	if inStruct && name == "" {
		return field{}, t
	}
	f = field{name: cmp.Or(name, sf.Name), tagged: name != ""}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			f.omitEmpty = true
		case "omitzero":
			f.omitZero = true
		case "string":
			f.quoted = quotable(t.Kind())
		}
	}
	return f, nil
}
