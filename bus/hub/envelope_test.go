package hub

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

func TestEnvelope(t *testing.T) {
	t.Parallel()
	e := envelope{kind: kindBinary, node: "n", to: []string{":room:a", ""}, except: []string{"é"}, payload: []byte{0, 255}}
	want := []byte("\x01\x02\x01n\x02\x07:room:a\x00\x01\x02é\x00\xff")
	got := e.append([]byte("before"))[6:]
	if !bytes.Equal(got, want) {
		t.Errorf("appended %q, want %q", got, want)
	}
	if back, err := parseEnvelope(got); err != nil || !reflect.DeepEqual(back, e) {
		t.Errorf("parsed %+v, %v", back, err)
	}
	for n := range len(got) - len(e.payload) {
		if back, err := parseEnvelope(got[:n]); err == nil {
			t.Errorf("%q is cut short, but gives %+v", got[:n], back)
		}
	}
	for _, wrong := range []string{
		"\x02\x01\x01n\x00\x00",                          // version
		"\x01\x00\x01n\x00\x00", "\x01\xff\x01n\x00\x00", // kind
		"\x01\x01\x00\x00\x00",                                  // no node
		"\x01\x01\x01n\xff\xff\xff\xff\x0f\x00", "\x01\x01\xff", // lengths
		"\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01n\x00\x00", // of 64 bits
		"\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffn\x00\x00", // and more
	} {
		if back, err := parseEnvelope([]byte(wrong)); err == nil {
			t.Errorf("%q gives %+v", wrong, back)
		}
	}
}

// What parses is written as what parses to the same.
func FuzzEnvelope(f *testing.F) {
	e := envelope{kind: kindText, node: "node", to: []string{":room:a", ":member:b"}, except: []string{":room:c"}, payload: []byte("{}")}
	f.Add(e.append(nil))
	f.Add([]byte("\x01\x08\x01n\x00\x00"))
	f.Add([]byte("\x01\x01\x01n\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseEnvelope(data)
		if err != nil {
			return
		}
		back, err := parseEnvelope(e.append(nil))
		if err != nil || back.kind != e.kind || back.node != e.node || !slices.Equal(back.to, e.to) ||
			!slices.Equal(back.except, e.except) || !bytes.Equal(back.payload, e.payload) {
			t.Errorf("%+v became %+v, %v", e, back, err)
		}
	})
}
