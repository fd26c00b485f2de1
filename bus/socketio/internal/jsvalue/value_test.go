package jsvalue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

type (
	shout    string
	point    struct{ X, Y int }
	level    int
	onValue  struct{ n int }
	onTarget struct{ n int }
	bytish   uint8
	bits     []bytish
	Base     struct {
		ID     int    `json:"id"`
		Hidden string `json:"-"`
		Shared string
	}
	Other struct {
		Shared string
		Tagged string `json:"tagged"`
	}
	Tree struct {
		Name string `json:"name,omitempty"`
		*Tree
	}
	Renamed struct {
		Else string `json:"Shared"`
	}
	both struct {
		Base
		Renamed
	}
	neither struct {
		Base
		Other
	}
	lower struct{ Promoted string }
	named struct {
		lower `json:"lower"`
	}
	left    struct{ middle }
	right   struct{ middle }
	middle  struct{ lower }
	diamond struct {
		left
		right
	}
	zeroAt5   struct{ N int }
	quotedInt int
	record    struct {
		Base
		*Other
		lower
		Named   Base `json:"named"`
		Tagged  string
		Empty   string             `json:",omitempty"`
		None    []int              `json:"none,omitempty"`
		Array   [0]int             `json:"array,omitempty"`
		Map     map[string]int     `json:"map,omitempty"`
		Struct  point              `json:"struct,omitempty"`
		Zero    point              `json:"zero,omitzero"`
		When    time.Duration      `json:"when,omitzero"`
		Addr    netip.Addr         `json:"addr,omitzero"`
		Text    netip.Addr         `json:"text"`
		Quoted  int                `json:"quoted,string"`
		QuotedS string             `json:"quotedS,string"`
		QuotedP *bool              `json:"quotedP,string"`
		Any     any                `json:"any"`
		Ptr     **int              `json:"ptr"`
		Keys    map[level]shout    `json:"keys"`
		Texts   map[netip.Addr]int `json:"texts"`
		private int
	}
)

func (s shout) MarshalText() ([]byte, error) { return []byte(strings.ToUpper(string(s))), nil }
func (v onValue) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"z": %d, "a": [1, {}]}`, v.n), nil
}
func (v *onTarget) MarshalJSON() ([]byte, error)  { return fmt.Appendf(nil, "%d", v.n), nil }
func (q *quotedInt) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "[%d]", *q), nil }
func (b bytish) MarshalText() ([]byte, error)     { return fmt.Appendf(nil, "%b", b), nil }
func (z *zeroAt5) IsZero() bool                   { return z.N == 5 }

// Values without []byte and time.Time are written as encoding/json writes them.
func TestValuesAreJSON(t *testing.T) {
	t.Parallel()
	n, yes, quoted := 7, true, quotedInt(2)
	np := &n
	odd := reflect.New(reflect.StructOf([]reflect.StructField{ // what staticcheck has something against
		{Name: "Bad", Type: reflect.TypeFor[int](), Tag: `json:"b\"ad"`},
		{Name: "Dash", Type: reflect.TypeFor[int](), Tag: `json:"-,"`},
		{Name: "List", Type: reflect.TypeFor[[]int](), Tag: `json:"list,string"`},
	})).Elem()
	huge, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	for i, v := range []any{
		nil, true, 1, int8(-1), uint8(255), uintptr(3), int64(math.MaxInt64), uint64(math.MaxUint64), float32(0.1), float32(16777216), 0.1,
		1e21, 1e20, 1e-6, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, -1.5e-9,
		"", "a\"\\\x00\x1f\b\f\n\r\t</>&é😀", json.Number("12.50"), json.Number("1e3"),
		json.RawMessage(`{"b": 1, "a": [true, null, 1.5, "x"], "b": 2}`), json.RawMessage(nil),
		[]int{1, 2}, []int(nil), [2]bool{true}, [3]byte{1, 2, 3}, []any{1, "a", nil, []string{}}, bits{1, 2},
		map[string]int{"b": 2, "a": 1}, map[int]string{10: "x", 9: "y"}, map[string]int(nil), map[shout]int{"key": 1},
		point{1, 2}, &point{3, 4}, (*point)(nil), struct{}{}, shout("hey"), []shout{"a"},
		onValue{1}, &onValue{2}, (*onValue)(nil), onTarget{3}, &onTarget{4}, []onTarget{{5}}, map[string]onTarget{"a": {6}}, &struct{ V onTarget }{onTarget{7}},
		huge, big.NewFloat(1.5), time.Second, netip.MustParseAddr("::1"),
		Tree{"a", &Tree{"b", nil}},
		both{Base{Shared: "hidden"}, Renamed{"tagged"}}, neither{Base{Shared: "one"}, Other{Shared: "other"}},
		diamond{left: left{middle{lower{"left"}}}}, named{lower{"named"}},
		struct {
			Own     shout      `json:",string"`
			Value   quotedInt  `json:",string"`
			Pointer *quotedInt `json:",string"`
		}{"own", 1, &quoted}, &struct {
			Value quotedInt `json:",string"`
		}{1},
		struct {
			Empty []int    `json:",omitempty,omitzero"`
			Any   any      `json:",omitzero"`
			Nil   any      `json:",omitzero"`
			Ptr   **int    `json:",omitzero"`
			Iface zeroer   `json:",omitzero"`
			NilI  zeroer   `json:",omitzero"`
			Own   zeroAt5  `json:",omitzero"`
			OwnP  *zeroAt5 `json:",omitzero"`
		}{[]int{}, &zeroAt5{5}, (*int)(nil), new(*int), &zeroAt5{5}, (*zeroAt5)(nil), zeroAt5{5}, &zeroAt5{5}},
		odd.Interface(), record{}, &record{
			Base: Base{ID: 1, Shared: "base", Hidden: "x"}, Other: &Other{"other", "other's"}, lower: lower{"p"},
			Named: Base{ID: 2}, Tagged: "own", Empty: "e", None: []int{1}, Map: map[string]int{"a": 1}, Zero: point{1, 0},
			When: 1, Addr: netip.MustParseAddr("1.2.3.4"), Quoted: 5, QuotedS: "q\"", QuotedP: &yes,
			Any: map[string]any{"x": []any{1.5}}, Ptr: &np, Keys: map[level]shout{2: "b", 1: "a"},
			Texts: map[netip.Addr]int{netip.MustParseAddr("::2"): 1}, private: 1,
		},
	} {
		var want bytes.Buffer
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		tree, err := Normalize(v)
		if err != nil {
			t.Errorf("%d %T: %v", i, v, err)
			continue
		}
		got, want2 := string(AppendJSON(nil, tree)), want.String()
		if raw, ok := v.(json.RawMessage); ok && raw != nil {
			want2 = `{"b":1,"a":[true,null,1.5,"x"],"b":2}`
		}
		if s, ok := v.(json.Number); ok { // a number is written in one way
			want2 = map[json.Number]string{"12.50": "12.5", "1e3": "1000"}[s]
		}
		if got != strings.TrimSpace(want2) && v != any(huge) {
			t.Errorf("%d %T:\n%s, want\n%s", i, v, got, want2)
		}
	}
}

func TestOwnValues(t *testing.T) {
	t.Parallel()
	type blob []byte
	at := time.Date(2024, 2, 29, 12, 0, 0, 123_999_999, time.FixedZone("", 3600))
	ms := time.Date(2024, 2, 29, 11, 0, 0, 123e6, time.UTC)
	for _, tt := range []struct {
		name    string
		v, want any
		binary  bool
	}{
		{"bytes", []byte{1}, []byte{1}, true},
		{"no bytes", []byte{}, []byte{}, true},
		{"nil bytes", []byte(nil), nil, false},
		{"named bytes", blob{1}, []byte{1}, true},
		{"bytes in a struct", struct {
			A *blob `json:"a"`
		}{&blob{1}}, Object{{"a", []byte{1}}}, true},
		{"bytes in a map", map[string]any{"a": [][]byte{{1}}}, Object{{"a", []any{[]byte{1}}}}, true},
		{"bytes that marshal themselves", json.RawMessage(`"AQ=="`), "AQ==", false},
		{"a time", at, ms, false},
		{"a pointer to a time", &at, ms, false},
		{"no time", (*time.Time)(nil), nil, false},
		{"times", map[string]time.Time{"a": at}, Object{{"a", ms}}, false},
		{"a time that is embedded", struct{ time.Time }{ms}, "2024-02-29T11:00:00.123Z", false},
		{"a large integer", json.Number("18446744073709551615"), uint64(math.MaxUint64), false},
		{"negative zero", math.Copysign(0, -1), math.Copysign(0, -1), false},
	} {
		got, err := Normalize(tt.v)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %#v, %v; want %#v", tt.name, got, err, tt.want)
		}
		if HasBinary(got) != tt.binary {
			t.Errorf("%s: binary is %v", tt.name, !tt.binary)
		}
	}
}

func TestNoValues(t *testing.T) {
	t.Parallel()
	type loop struct{ Next *loop }
	self := &loop{}
	self.Next = self
	list := []any{nil}
	list[0] = list
	for name, v := range map[string]any{
		"NaN": math.NaN(), "infinite": []any{math.Inf(-1)}, "func": func() {}, "chan": struct{ C chan int }{}, "complex": 1i,
		"map by struct": map[point]int{{}: 1}, "map by float": map[float64]int{1: 1}, "a circle": self, "a circle of lists": list,
		"not JSON": json.RawMessage("{"), "not a number": json.Number("x"), "year 10000": time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := Normalize(v); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Lists that claim more elements than there are take no memory for them, not even
// nested ones. What is too deep or too long is refused.
func TestHostileSizes(t *testing.T) { // not parallel: it measures
	rest := strings.Repeat("\xc0", 1<<20)
	for name, data := range map[string]string{
		"lists in lists": strings.Repeat("\xdd\x00\x10\x00\x00", maxDepth) + rest,
		"maps in maps":   strings.Repeat("\xdf\x00\x07\xff\xff\xa1x", maxDepth) + rest,
		"binary":         "\xc6\xff\xff\xff\xff" + rest,
		"too deep":       strings.Repeat("\x91", 1<<20) + "\xc0",
		"too long":       strings.Repeat("\xc0", maxMessage+1),
		"JSON":           "{\"a\":" + strings.Repeat("[", 1<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse([]byte(data))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(data))+200<<20 {
			t.Errorf("%s: reading %d bytes took %d", name, len(data), took)
		}
	}
}

// Whatever bytes are read: the value that was read can be written and read again.
func FuzzMsgpack(f *testing.F) {
	for _, seed := range []string{
		"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", "\xc9\xff\xff\xff\xff\x00", "\xd4\x00\x00", "\xd7\xff12345678",
		"\x91\xc4\x00", "\xd7\x0012345678", "\xc7\x0c\xff123456789012", "\xc7\x02\x00ab", "\x81\x01\x02", "\x81\xcb12345678\xa0", "\xca1234", strings.Repeat("\x91", 2000) + "\xc0",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseMsgpack(data)
		if err != nil {
			return
		}
		tree, err := Normalize(v)
		if err != nil {
			return // NaN, or a year that JSON doesn't have
		}
		again, err := ParseMsgpack(Timestamps.AppendMsgpack(nil, tree))
		if err != nil {
			t.Fatal(err)
		}
		second, err := Normalize(again)
		if err != nil || !reflect.DeepEqual(tree, second) {
			t.Fatalf("%#v\n%#v, %v", tree, second, err)
		}
		if !json.Valid(AppendJSON(nil, tree)) {
			t.Fatalf("%s is no JSON", AppendJSON(nil, tree))
		}
	})
}

func FuzzJSONString(f *testing.F) {
	f.Add("a\"\\\x00\u2028é😀\xff")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(AppendJSON(nil, Valid(s)), &got); err != nil || got != Valid(s) {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
