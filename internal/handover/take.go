package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// Hello greets the predecessor and returns its listeners.
func (c *Conn) Hello() (listeners []Item, err error) {
	b := binary.BigEndian.AppendUint16([]byte(magic), minVersion)
	b = binary.BigEndian.AppendUint16(b, maxVersion)
	if err := c.send(message{kind: hello, payload: b}); err != nil {
		return nil, err
	}
	m, err := c.expect(welcome, c.times.take)
	if err != nil {
		return nil, err
	}
	if len(m.payload) < 2 {
		m.close()
		return nil, errShort
	}
	m.payload = m.payload[2:] // there is one version
	listeners, err = m.items(nil)
	if err != nil {
		m.close()
		return nil, err
	}
	return listeners, nil
}

// Ready asks the predecessor for everything.
func (c *Conn) Ready() error { return c.reason(c.send(message{kind: ready})) }

// reason returns why the predecessor has ended the connection, if err says that it has: an abort
// may be there that wasn't read yet. Only a predecessor that is dead has sent none.
func (c *Conn) reason(err error) error {
	if !Ended(err) {
		return err
	}
	for {
		m, last := c.next(c.times.take)
		if last != nil {
			return last
		}
		m.close()
	}
}

// A Taker is what a successor does with what it gets.
type Taker interface {
	// State is called with each part of what has no files, before an offer.
	State(part []byte) error
	// Room reports whether there is room for so many descriptors.
	Room(files int) error
	// Check reports whether the successor could go on with the items. It must not use their
	// files.
	Check(state []byte, items []Item) error
}

// Take waits for the next offer, for within at most, and takes it. 0 is no limit. When it
// returns without an error, the items are the caller's, to use and to close. The error is
// [io.EOF] if the predecessor has ended the connection since it has nothing more to give. After
// any other error the connection is over, and nothing is the caller's.
func (c *Conn) Take(t Taker, within time.Duration) (state []byte, items []Item, err error) {
	items, state, err = c.receive(t, within)
	err = c.reason(err)
	if err == nil {
		// If that fails, what can be read says whether the predecessor has sent abort.
		_ = c.send(message{kind: received})
		err = c.awaitCommit()
	}
	if err != nil {
		for _, it := range items {
			closeAll(it.Files)
		}
		if err != io.EOF {
			c.Abort(err)
		}
		return nil, nil, err
	}
	return state, items, nil
}

// awaitCommit returns nil when the items are the successor's.
func (c *Conn) awaitCommit() error {
	_, err := c.expect(commit, c.times.take)
	if err != nil && !Ended(err) {
		return err
	}
	// If the predecessor is dead, nobody reads this, and that doesn't matter.
	_ = c.send(message{kind: taken})
	return nil
}

// Ended reports whether err says that the other process has ended the connection.
func Ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// receive takes what comes up to the last batch. If it returns an error, items may have
// descriptors that are open.
func (c *Conn) receive(t Taker, within time.Duration) (items []Item, offered []byte, err error) {
	head, err := c.awaitOffer(t, within)
	if err != nil {
		return nil, nil, err
	}
	if len(head) < 8 {
		return nil, nil, errShort
	}
	count, files := int(binary.BigEndian.Uint32(head)), int(binary.BigEndian.Uint32(head[4:]))
	offered = head[8:]
	if err := t.Room(files); err != nil {
		return nil, nil, err
	}
	if err := c.send(message{kind: accept}); err != nil {
		return nil, nil, err
	}
	for len(items) < count {
		m, err := c.expect(batch, c.times.take)
		if err != nil {
			return items, nil, err
		}
		had := len(items)
		if items, err = m.items(items); err != nil || len(items) == had {
			m.close()
			return items[:had], nil, errShort
		}
		if err := c.send(message{kind: ack}); err != nil && len(items) < count {
			return items, nil, err
		}
	}
	if len(items) != count {
		return items, nil, fmt.Errorf("%d came where %d were offered", len(items), count)
	}
	return items, offered, t.Check(offered, items)
}

// awaitOffer waits for an offer and returns what it holds.
func (c *Conn) awaitOffer(t Taker, within time.Duration) ([]byte, error) {
	for {
		m, err := c.next(within)
		switch {
		case err != nil:
			return nil, err
		case m.kind == offer && len(m.files) == 0:
			return m.payload, nil
		case m.kind == state && len(m.files) == 0:
			if err := t.State(m.payload); err != nil {
				return nil, err
			}
			if err := c.send(message{kind: ack}); err != nil {
				return nil, err
			}
		default:
			m.close()
			return nil, fmt.Errorf("there came %v where an offer was expected", m.kind)
		}
	}
}
