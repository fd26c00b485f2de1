package jsvalue

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// maxMessage is the size of the longest message that is read. Redis by default
// disconnects a subscriber that has as much waiting.
const maxMessage = 32 << 20

// Parse reads a message that is either JSON or MessagePack. All npm packages tell
// the two apart by the first byte: a JSON message is an object, so it begins with a
// brace.
func Parse(data []byte) (any, error) {
	if len(data) > maxMessage {
		return nil, fmt.Errorf("%d bytes are more than the %d that are read", len(data), maxMessage)
	}
	if len(data) > 0 && data[0] == '{' {
		var v map[string]any
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, err
		}
		return v, nil
	}
	return ParseMsgpack(data)
}

// ParseMsgpack reads one value with nothing behind it. What it allocates is in
// proportion to the length of data, whatever lengths the lists in it claim to have.
func ParseMsgpack(data []byte) (any, error) {
	v, rest, err := readValue(data, 0)
	if err != nil {
		return nil, fmt.Errorf("MessagePack: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("MessagePack: %d bytes behind the end", len(rest))
	}
	return v, nil
}

func readValue(b []byte, depth int) (v any, rest []byte, err error) {
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch msgp.NextType(b) {
	case msgp.NilType:
		rest, err = msgp.ReadNilBytes(b)
		return nil, rest, err
	case msgp.BoolType:
		return boxed(msgp.ReadBoolBytes(b))
	case msgp.IntType:
		i, rest, err := msgp.ReadInt64Bytes(b)
		return float64(i), rest, err
	case msgp.UintType:
		u, rest, err := msgp.ReadUint64Bytes(b)
		return float64(u), rest, err
	case msgp.Float32Type:
		f, rest, err := msgp.ReadFloat32Bytes(b)
		return float64(f), rest, err
	case msgp.Float64Type:
		return boxed(msgp.ReadFloat64Bytes(b))
	case msgp.StrType:
		s, rest, err := msgp.ReadStringZC(b)
		return Valid(string(s)), rest, err
	case msgp.BinType:
		data, rest, err := msgp.ReadBytesZC(b)
		return append([]byte{}, data...), rest, err // never nil
	case msgp.ArrayType:
		return readArray(b, depth)
	case msgp.MapType:
		return readMap(b, depth)
	case msgp.InvalidType:
		if len(b) == 0 {
			return nil, nil, msgp.ErrShortBytes
		}
		return nil, nil, msgp.InvalidPrefixError(b[0])
	}
	return readExtension(b)
}

// boxed returns a value as an any, beside the rest and the error.
func boxed[T any](v T, rest []byte, err error) (any, []byte, error) { return v, rest, err }

func readArray(b []byte, depth int) (any, []byte, error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return nil, nil, err
	}
	if int(n) > len(b) { // each element takes at least a byte
		return nil, nil, msgp.ErrShortBytes
	}
	list := make([]any, 0, min(n, 1024)) // nested lists may all claim as many
	for range n {
		var v any
		if v, b, err = readValue(b, depth+1); err != nil {
			return nil, nil, err
		}
		list = append(list, v)
	}
	return list, b, nil
}

func readMap(b []byte, depth int) (any, []byte, error) {
	n, b, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return nil, nil, err
	}
	if int(n) > len(b)/2 {
		return nil, nil, msgp.ErrShortBytes
	}
	m := make(map[string]any)
	for range n {
		var k, v any
		if k, b, err = readValue(b, depth+1); err != nil {
			return nil, nil, err
		}
		key, ok := PropertyName(k)
		if !ok {
			return nil, nil, fmt.Errorf("the key of a property is a %T", k)
		}
		if v, b, err = readValue(b, depth+1); err != nil {
			return nil, nil, err
		}
		m[key] = v
	}
	return m, b, nil
}

// readExtension reads an extension. Known ones are undefined, an ArrayBuffer and a
// Date. Any other becomes a list of its type and its data, as notepack.io reads it.
func readExtension(b []byte) (any, []byte, error) {
	var ext extension
	rest, err := msgp.ReadExtensionBytes(b, ext.of(b))
	if err != nil {
		return nil, nil, err
	}
	fixed := b[0] >= 0xd4
	switch {
	case ext.kind == 0 && fixed && len(ext.data) == 1:
		return nil, rest, nil
	case ext.kind == 0 && fixed && len(ext.data) == 8:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(ext.data))).UTC(), rest, nil
	case ext.kind == 0 && !fixed:
		return ext.data, rest, nil
	case ext.kind == -1:
		t, err := readTimestamp(ext.data)
		return t, rest, err
	}
	return []any{float64(ext.kind), ext.data}, rest, nil
}

// readTimestamp reads the three formats that appendTimestamp writes.
func readTimestamp(b []byte) (any, error) {
	switch len(b) {
	case 4:
		return time.Unix(int64(binary.BigEndian.Uint32(b)), 0).UTC(), nil
	case 8:
		v := binary.BigEndian.Uint64(b)
		return time.Unix(int64(v&(1<<34-1)), int64(v>>34)).UTC(), nil
	case 12:
		return time.Unix(int64(binary.BigEndian.Uint64(b[4:])), int64(binary.BigEndian.Uint32(b))).UTC(), nil
	}
	return nil, errors.New("a timestamp of " + strconv.Itoa(len(b)) + " bytes")
}

// An extension reads any extension. msgp must be told which type it is to expect.
type extension struct {
	kind int8
	data []byte
}

// of takes the type from the place at which the first byte says that it is.
func (e *extension) of(b []byte) *extension {
	at := 1
	switch b[0] {
	case 0xc7:
		at = 2
	case 0xc8:
		at = 3
	case 0xc9:
		at = 5
	}
	if at < len(b) {
		e.kind = int8(b[at])
	}
	return e
}

func (e *extension) ExtensionType() int8            { return e.kind }
func (e *extension) Len() int                       { return len(e.data) }
func (e *extension) MarshalBinaryTo(b []byte) error { copy(b, e.data); return nil }
func (e *extension) UnmarshalBinary(b []byte) error {
	e.data = append([]byte{}, b...)
	return nil
}
