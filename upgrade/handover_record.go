package upgrade

import (
	"encoding/binary"
	"math"
	"time"
)

// A recordCodec writes or reads a record, field by field, so that both agree. The record has no
// names and no version: that of the protocol by which it travels is its version, and must change
// with it.
type recordCodec struct {
	b      []byte
	reads  bool
	failed bool
}

// code passes each field of r to c.
func (r *Record) code(c *recordCodec) {
	c.string(&r.Group)
	c.string(&r.Key)
	c.float(&r.Turn)
	c.bool(&r.websocket)
	c.float(&r.jitter)
	for _, d := range []*time.Duration{&r.age, &r.silent, &r.unspoken, &r.asked, &r.stalled, &r.full} {
		number(c, d)
	}
	c.bool(&r.answered)
	for i := range r.flows {
		r.flows[i].code(c)
	}
	has := r.course != nil
	if c.bool(&has); has {
		if c.reads {
			r.course = &courseRecord{}
		}
		r.course.code(c)
	}
	c.failed = c.failed || !has && (r.flows[0].fin || r.flows[1].fin) // only a tunnel that is ending shuts down what it writes to
}

func (r *flowRecord) code(c *recordCodec) {
	f := &r.frames
	number(c, &f.messages)
	number(c, &f.size)
	number(c, &f.left)
	number(c, &f.key)
	number(c, &f.code)
	for _, b := range []*bool{&f.off, &f.closed, &f.open, &r.fin} {
		c.bool(b)
	}
	for _, b := range []*uint8{&f.op, &f.have, &f.need, &f.got} {
		number(c, b)
	}
	number(c, &r.bytes)
	number(c, &r.fed)
	c.bytes(&r.wait)
	c.failed = c.failed || r.fed < 0 || r.fed > len(r.wait) || f.have > 14 || f.need > 14
}

func (r *courseRecord) code(c *recordCodec) {
	for d := range r.phases {
		number(c, &r.phases[d])
		c.bool(&r.ended[d])
		c.failed = c.failed || r.phases[d] > over
	}
	for _, b := range []*bool{&r.closeSeen, &r.known, &r.quietly} {
		c.bool(b)
	}
	number(c, &r.by)
	number(c, &r.closeCode)
	c.string(&r.reason)
	c.string(&r.err)
	number(c, &r.quiet)
	number(c, &r.quietIn)
}

// number passes an integer of any kind.
func number[T ~int | ~int64 | ~uint64 | ~uint32 | ~uint16 | ~uint8](c *recordCodec, v *T) {
	if !c.reads {
		c.b = binary.AppendVarint(c.b, int64(*v))
		return
	}
	n, size := binary.Varint(c.b)
	if size <= 0 || int64(T(n)) != n {
		c.fail()
		return
	}
	*v, c.b = T(n), c.b[size:]
}

func (c *recordCodec) bool(v *bool) {
	n := 0
	if *v {
		n = 1
	}
	number(c, &n)
	*v = n != 0
}

func (c *recordCodec) float(v *float64) {
	n := math.Float64bits(*v)
	number(c, &n)
	*v = math.Float64frombits(n)
}

func (c *recordCodec) bytes(v *[]byte) {
	n := len(*v)
	if number(c, &n); !c.reads {
		c.b = append(c.b, *v...)
		return
	}
	if n < 0 || n > len(c.b) {
		c.fail()
		return
	}
	*v, c.b = c.b[:n:n], c.b[n:]
}

func (c *recordCodec) string(v *string) {
	b := []byte(*v)
	c.bytes(&b)
	*v = string(b)
}

// fail has all that follows be zero.
func (c *recordCodec) fail() { c.b, c.failed = nil, true }
