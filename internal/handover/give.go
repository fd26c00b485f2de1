package handover

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Give offers items, which nobody uses from before Give until it has returned, and state. It
// reports whether the successor owns them. If it doesn't, err says why, and the caller goes on
// with them. Either way the descriptors are the caller's to close. state should be short, as
// nobody uses the items while it is sent: see SendState.
func (c *Conn) Give(state []byte, items []Item) (gone bool, err error) {
	c.until = time.Now().Add(c.times.give)
	defer func() { c.until = time.Time{} }()
	if err := c.offer(state, items); err != nil {
		c.Abort(err)
		return false, err
	}
	// From here on the decision is the successor's: it may have read commit. Whether it has
	// follows from what it writes, or from its end.
	c.until = time.Time{}
	if err := c.send(message{kind: commit}); err != nil {
		return false, err // there is nobody who could have read it
	}
	if _, err := c.expect(taken, 0); err != nil {
		return false, err
	}
	return true, nil
}

// offer makes the steps of Give up to received.
func (c *Conn) offer(state []byte, items []Item) error {
	files := 0
	for _, it := range items {
		files += len(it.Files)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(items)))
	head = binary.BigEndian.AppendUint32(head, uint32(files))
	if err := c.send(message{kind: offer, payload: append(head, state...)}); err != nil {
		return err
	}
	if _, err := c.expect(accept, c.times.step); err != nil {
		return err
	}
	for _, m := range batches(items) {
		if err := c.send(m); err != nil {
			return err
		}
		if _, err := c.expect(ack, c.times.step); err != nil {
			return err
		}
	}
	_, err := c.expect(received, c.times.step)
	return err
}

// SendState sends a part of what has no files, before an offer, and waits until the successor
// has it.
func (c *Conn) SendState(part []byte) error {
	if err := c.send(message{kind: state, payload: part}); err != nil {
		return err
	}
	_, err := c.expect(ack, c.times.take)
	return err
}

// AwaitReady waits until the successor wants everything, for within at most.
func (c *Conn) AwaitReady(within time.Duration) error {
	_, err := c.expect(ready, within)
	return err
}

// Welcome waits for the successor's hello and answers it with the listeners. If it returns an
// error it has told the successor.
func (c *Conn) Welcome(listeners []Item) error {
	m, err := c.expect(hello, c.times.step) // which comes at once, and others wait behind this one
	if err != nil {
		return err
	}
	if len(m.payload) != len(magic)+4 || string(m.payload[:len(magic)]) != magic {
		return c.Abort(errForeign)
	}
	low := int(binary.BigEndian.Uint16(m.payload[len(magic):]))
	high := int(binary.BigEndian.Uint16(m.payload[len(magic)+2:]))
	if low > maxVersion || high < minVersion {
		return c.Abort(fmt.Errorf("the successor speaks versions %d to %d of the protocol and the predecessor %d to %d: restart without a takeover, once", low, high, minVersion, maxVersion))
	}
	all := batches(listeners)
	if len(all) > 1 {
		return c.Abort(fmt.Errorf("there are more than %d listeners", maxFiles))
	}
	m = message{kind: welcome, payload: binary.BigEndian.AppendUint16(nil, uint16(min(high, maxVersion)))}
	if len(all) == 1 {
		m.payload, m.files = append(m.payload, all[0].payload...), all[0].files
	}
	return c.send(m)
}
