package jsvalue

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// Dates says how Dates are written in MessagePack. ParseMsgpack reads both ways.
type Dates bool

const (
	Timestamps Dates = false // the timestamp extension: notepack.io 3, @msgpack/msgpack
	OldDates   Dates = true  // extension 0 with milliseconds: notepack.io 2, which knows no other
)

// AppendMsgpack appends a normalized value as notepack.io and @msgpack/msgpack write
// it. Only integers beyond 2^53 are written in another way, since notepack.io loses
// those that don't fit into 64 bits.
func (d Dates) AppendMsgpack(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return msgp.AppendNil(b)
	case bool:
		return msgp.AppendBool(b, v)
	case int64:
		return appendInt(b, v)
	case uint64:
		return msgp.AppendUint64(b, v)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return appendInt(b, int64(v))
		}
		return msgp.AppendFloat64(b, v)
	case string:
		return msgp.AppendString(b, v)
	case []byte:
		return msgp.AppendBytes(b, v)
	case time.Time:
		if d == OldDates {
			b = append(b, 0xd7, 0)
			return binary.BigEndian.AppendUint64(b, uint64(v.UnixMilli()))
		}
		return appendTimestamp(b, v)
	case []any:
		b = msgp.AppendArrayHeader(b, uint32(len(v)))
		for _, e := range v {
			b = d.AppendMsgpack(b, e)
		}
		return b
	case Object:
		b = msgp.AppendMapHeader(b, uint32(len(v)))
		for _, p := range v {
			b = d.AppendMsgpack(msgp.AppendString(b, p.Key), p.Value)
		}
		return b
	}
	panic("jsvalue: a value that isn't normalized")
}

// appendInt appends an integer that isn't negative in an unsigned format, as the npm
// packages do; msgp.AppendInt64 doesn't.
func appendInt(b []byte, i int64) []byte {
	if i >= 0 {
		return msgp.AppendUint64(b, uint64(i))
	}
	return msgp.AppendInt64(b, i)
}

// appendTimestamp appends the shortest of the three timestamp formats (MessagePack
// specification, "Timestamp extension type").
func appendTimestamp(b []byte, t time.Time) []byte {
	sec, nsec := t.Unix(), t.Nanosecond()
	switch {
	case nsec == 0 && sec >= 0 && sec <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, 0xd6, 0xff), uint32(sec))
	case sec >= 0 && sec < 1<<34:
		return binary.BigEndian.AppendUint64(append(b, 0xd7, 0xff), uint64(nsec)<<34|uint64(sec))
	}
	b = binary.BigEndian.AppendUint32(append(b, 0xc7, 12, 0xff), uint32(nsec))
	return binary.BigEndian.AppendUint64(b, uint64(sec))
}
